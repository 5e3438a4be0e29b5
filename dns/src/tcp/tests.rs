use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use super::*;
use crate::names::tests::{PATIENCE, answers_over_udp, question, started};

/// Opens a connection from an address of this machine and asks; the connection, if it was answered.
async fn asks(names: &Names, from: [u8; 4]) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(names.addresses()[0]).await.unwrap();
    let question = question("web.shop.svc.cluster.local.").to_vec().unwrap();
    let exchange = async {
        stream.write_u16(u16::try_from(question.len()).unwrap()).await?;
        stream.write_all(&question).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await
    };
    let answered = timeout(PATIENCE, exchange).await.unwrap();
    answered.is_ok().then_some(stream)
}

/// As many connections as are answered, of those that are tried.
async fn open(names: &Names, from: [u8; 4], tries: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..tries {
        open.extend(asks(names, from).await);
    }
    open
}

#[tokio::test]
async fn connections_beyond_the_limits_are_closed_and_nobody_else_notices() {
    let (names, _guard) = started(&[]);
    let Limits { connections, connections_each, .. } = Limits::default();
    let mut held = open(&names, [127, 0, 1, 1], connections_each + 5).await;
    assert_eq!(held.len(), connections_each, "from one address");
    for last in 2..=30 {
        held.extend(open(&names, [127, 0, 1, last], connections_each).await);
    }
    assert_eq!(held.len(), connections, "in all");
    assert!(asks(&names, [127, 0, 1, 200]).await.is_none());
    assert!(answers_over_udp(&names).await, "over UDP all is as it was");

    drop(held);
    let again = async {
        while asks(&names, [127, 0, 1, 200]).await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_that_does_not_arrive_whole_in_time_ends_its_connection() {
    let (names, _guard) = started(&[]);
    let mut stream = TcpStream::connect(names.addresses()[0]).await.unwrap();
    stream.write_all(&[0, 40, 0]).await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_length_beyond_the_limit_ends_its_connection_unread() {
    let (names, _guard) = started(&[]);
    let mut stream = TcpStream::connect(names.addresses()[0]).await.unwrap();
    stream.write_u16(u16::MAX).await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}
