use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{DuplexStream, duplex, split};

use super::*;
use crate::names::tests::{question, started};

/// Sends bytes on a stream of their own and ends it; what comes back, and how the serving side ended.
async fn exchange(bytes: Vec<u8>) -> (Vec<u8>, Result<(), DoqError>) {
    let (names, _guard) = started(&[]);
    let (mut client, server): (DuplexStream, DuplexStream) = duplex(64);
    let (receive, send) = split(server);
    let ask = async move {
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let source = "10.214.1.5:4000".parse().unwrap();
    let (answer, served) = tokio::join!(ask, serve(&names, send, receive, source));
    (answer, served)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn message(id: u16) -> Vec<u8> {
    let mut message = question("web.shop.svc.cluster.local.");
    message.metadata.id = id;
    message.to_vec().unwrap()
}

#[tokio::test]
async fn a_question_on_a_stream_gets_one_answer_and_the_end() {
    let (bytes, served) = exchange(framed(&message(0))).await;
    served.unwrap();
    assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
    let answer = Message::from_vec(&bytes[2..]).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (0, ResponseCode::NoError));
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_told_to_close_the_connection_and_gets_no_answer() {
    let long = [&5000_u16.to_be_bytes()[..], &[0; 5000]].concat();
    let mut reply = Message::from_vec(&message(0)).unwrap();
    reply.metadata.message_type = hickory_proto::op::MessageType::Response;
    let breaches = [
        (vec![], "the stream ended before a question"),
        (framed(&message(7)), "a question with id 7, which must be 0"),
        ([framed(&message(0)), vec![0]].concat(), "more than one question on a stream"),
        (framed(&[0; 3]), "the stream carries no question"),
        (long, "the stream carries no question"),
        (framed(&reply.to_vec().unwrap()), "an answer where a question must be"),
    ];
    for (bytes, expected) in breaches {
        let (names, _guard) = started(&[]);
        let (mut client, server) = duplex(8192);
        let (receive, send) = split(server);
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let error = serve(&names, send, receive, "10.214.1.5:4000".parse().unwrap()).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.closes_connection()), (expected, Some(DOQ_PROTOCOL_ERROR)));
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty(), "{expected}: {answer:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_question_costs_only_itself() {
    let (_, served) = exchange(framed(&message(0))[..9].to_vec()).await;
    assert_eq!(served.unwrap_err().closes_connection(), None);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_does_not_arrive_is_given_up() {
    let (names, _guard) = started(&[]);
    let (client, server) = duplex(64);
    let (receive, send) = split(server);
    let error = serve(&names, send, receive, "10.214.1.5:4000".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, DoqError::Deadline), "{error}");
    drop(client);
}
