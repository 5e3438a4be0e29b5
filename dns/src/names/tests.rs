use std::time::Duration;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use quorate_proto::endpoints::{Endpoint, ServiceAddress};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::DropGuard;

use super::*;
use crate::{
    answer::tests::{pod, service, settings},
    zone::Sources,
};

/// Longer than anything here takes; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

struct Sevens;

impl Random for Sevens {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

fn config(settings: Arc<Settings>, upstreams: &[SocketAddr]) -> Config {
    Config {
        settings,
        listen: vec!["127.53.0.1:0".parse().unwrap()],
        upstreams: upstreams.to_vec(),
        clients: vec![],
        limits: Limits::default(),
    }
}

fn start(config: Config) -> (Names, DropGuard) {
    let shutdown = CancellationToken::new();
    let names = Names::start(config, &Sevens, &TaskTracker::new(), &shutdown).unwrap();
    (names, shutdown.drop_guard())
}

fn zone_of(settings: &Arc<Settings>, web: [u8; 4]) -> Arc<Zone> {
    let many: Vec<Endpoint> = (0..200).map(|last| pod("n2", [10, 214, 2, last], true, None)).collect();
    let services = [
        service("web", ServiceAddress::Cluster(web.into()), &[]),
        service("many", ServiceAddress::Headless, &many),
        service("out", ServiceAddress::Name("web.shop.svc.example.com".into()), &[]),
    ];
    Arc::new(Zone::build(settings, &Sources { services: &services, ..Sources::default() }, 1))
}

/// Answers with a zone of its own, until the guard is dropped.
pub(crate) fn started(upstreams: &[SocketAddr]) -> (Names, DropGuard) {
    let (names, guard) = start(config(settings(), upstreams));
    names.publish(zone_of(&settings(), [10, 213, 0, 20]));
    (names, guard)
}

/// A server for the names of others: ours, with another zone.
fn elsewhere() -> (Names, DropGuard) {
    let range = |second| Ipv4Net::new_assert([10, second, 0, 0].into(), 16);
    let settings = Settings::new("example.com", range(1), range(2), [10, 1, 0, 10].into(), "other").unwrap();
    let settings = Arc::new(settings);
    let (names, guard) = start(config(Arc::clone(&settings), &[]));
    names.publish(zone_of(&settings, [192, 0, 2, 80]));
    (names, guard)
}

pub(crate) fn question(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.id = 99;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

async fn over_udp_raw(names: &Names, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(names.addresses()[0]).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65536];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    buffer
}

async fn over_udp(names: &Names, message: &Message) -> Message {
    Message::from_vec(&over_udp_raw(names, &message.to_vec().unwrap()).await).unwrap()
}

/// Whether a name of the cluster is found over UDP.
pub(crate) async fn answers_over_udp(names: &Names) -> bool {
    !addresses(&over_udp(names, &question("web.shop.svc.cluster.local.")).await).is_empty()
}

async fn over_tcp(names: &Names, messages: &[Message]) -> Vec<Message> {
    over_tcp_each(names, messages, messages.len()).await
}

/// Sends messages on one connection, and reads as many answers as are expected.
async fn over_tcp_each(names: &Names, messages: &[Message], expected: usize) -> Vec<Message> {
    let mut stream = TcpStream::connect(names.addresses()[0]).await.unwrap();
    let mut answers = Vec::new();
    for message in messages {
        let bytes = message.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    for _ in 0..expected {
        let mut bytes = vec![0; usize::from(timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap())];
        stream.read_exact(&mut bytes).await.unwrap();
        answers.push(Message::from_vec(&bytes).unwrap());
    }
    answers
}

fn addresses(message: &Message) -> Vec<String> {
    let of = |data: &RData| data.ip_addr().map(|address| address.to_string());
    message.answers.iter().filter_map(|record| of(&record.data)).collect()
}

#[tokio::test]
async fn a_service_is_found_over_udp_and_over_tcp() {
    let (names, _guard) = started(&[]);
    let mut answers =
        over_tcp(&names, &[question("web.shop.svc.cluster.local."), question("Web.shop.svc.cluster.local.")]).await;
    answers.push(over_udp(&names, &question("web.shop.svc.cluster.local.")).await);
    for answer in &answers {
        assert_eq!(addresses(answer), ["10.213.0.20"]);
        assert_eq!(answer.metadata.id, 99);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    }
    assert_eq!(answers[1].answers[0].name.to_ascii(), "Web.shop.svc.cluster.local.", "the asker's spelling comes back");
}

#[tokio::test]
async fn what_is_published_is_what_the_next_question_gets() {
    let (names, _guard) = start(config(settings(), &[]));
    let ask = question("web.shop.svc.cluster.local.");
    assert_eq!(over_udp(&names, &ask).await.metadata.response_code, ResponseCode::ServFail);
    for last in [20, 21, 22] {
        names.publish(zone_of(&settings(), [10, 213, 0, last]));
        assert_eq!(addresses(&over_udp(&names, &ask).await), [format!("10.213.0.{last}")]);
    }
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_says_so_and_is_whole_over_tcp() {
    let (names, _guard) = started(&[]);
    let plain = question("many.shop.svc.cluster.local.");
    let mut roomy = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    roomy.set_edns(edns);

    let cut = over_udp_raw(&names, &plain.to_vec().unwrap()).await;
    assert!(cut.len() <= 512, "{}", cut.len());
    let cut = Message::from_vec(&cut).unwrap();
    assert!(cut.metadata.truncation && cut.answers.len() > 20 && cut.edns.is_none());

    let cut = over_udp_raw(&names, &roomy.to_vec().unwrap()).await;
    assert!(cut.len() > 1000 && cut.len() <= 1232, "{}", cut.len());
    let cut = Message::from_vec(&cut).unwrap();
    assert!(cut.metadata.truncation && cut.edns.is_some(), "an asker with EDNS is answered with EDNS, cut or not");

    let whole = over_tcp(&names, &[plain]).await;
    assert!(!whole[0].metadata.truncation);
    assert_eq!(whole[0].answers.len(), 200);
}

#[tokio::test]
async fn what_is_no_question_gets_an_error_or_nothing() {
    let (names, _guard) = started(&[]);
    let source = "10.214.1.5:4000".parse().unwrap();
    let good = question("web.shop.svc.cluster.local.");
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        message.to_vec().unwrap()
    };
    let mut many = good.to_vec().unwrap();
    many[4..6].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut cut = good.to_vec().unwrap();
    cut.truncate(20);
    let coded = [
        (with(&|message| message.metadata.op_code = OpCode::Update), ResponseCode::NotImp),
        (with(&|message| message.metadata.op_code = OpCode::Notify), ResponseCode::NotImp),
        (with(&|message| message.queries.clear()), ResponseCode::FormErr),
        (with(&|message| message.queries.push(message.queries[0].clone())), ResponseCode::FormErr),
        (many, ResponseCode::FormErr),
        (cut, ResponseCode::FormErr),
    ];
    for (bytes, code) in coded {
        let handed_in = names.answer(&bytes, Transport::Quic, source).await.unwrap();
        for answer in [handed_in.to_vec(), over_udp_raw(&names, &bytes).await] {
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (99, code));
        }
    }
    let reply = with(&|message| message.metadata.message_type = MessageType::Response);
    for silent in [&reply[..], &[], &[7; 11]] {
        assert_eq!(names.answer(silent, Transport::Quic, source).await, None);
    }
}

#[tokio::test]
async fn an_answer_sent_to_us_is_never_answered() {
    let (names, _guard) = started(&[]);
    let mut answer = question("web.shop.svc.cluster.local.");
    answer.metadata.message_type = MessageType::Response;
    let mut after = question("web.shop.svc.cluster.local.");
    after.metadata.id = 100;
    let answers = over_tcp_each(&names, &[answer, after], 1).await;
    assert_eq!(
        answers[0].metadata.id, 100,
        "questions of a connection are answered in order, and the first got nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_more_is_closed() {
    let (names, _guard) = started(&[]);
    let mut stream = TcpStream::connect(names.addresses()[0]).await.unwrap();
    let bytes = question("web.shop.svc.cluster.local.").to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    let end = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap();
    assert_eq!(end, 0);
}

#[tokio::test]
async fn bytes_of_any_kind_end_no_server() {
    let (names, _guard) = started(&[]);
    let good = question("web.shop.svc.cluster.local.").to_vec().unwrap();
    let numbers = Shuffle::new(1);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=numbers.number() % 4 {
            let at = usize::try_from(numbers.number()).unwrap_or_default() % bytes.len();
            bytes[at] = numbers.number().to_le_bytes()[0];
        }
        // What matters is that it comes back at all, and from a source that may not make us ask others.
        names.answer(&bytes, Transport::Udp, "192.0.2.1:53".parse().unwrap()).await;
        names.answer(&bytes, Transport::Tcp, "10.214.1.5:53".parse().unwrap()).await;
    }
}

#[tokio::test]
async fn a_version_of_edns_that_nobody_knows_is_told_which_is_known() {
    let (names, _guard) = started(&[]);
    let mut message = question("web.shop.svc.cluster.local.");
    let mut edns = Edns::new();
    edns.set_version(9);
    message.set_edns(edns);
    let answer = over_udp(&names, &message).await;
    // The code is 16, which also means `BADSIG`: the two share it (RFC 6895, 2.3).
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!((answer.edns.map(|edns| edns.version()), answer.answers.len()), (Some(0), 0));
}

#[tokio::test]
async fn names_of_others_are_asked_of_others_and_remembered() {
    let (theirs, their_guard) = elsewhere();
    let (ours, _guard) = started(theirs.addresses());
    let answer = over_udp(&ours, &question("web.shop.svc.example.com.")).await;
    assert_eq!(addresses(&answer), ["192.0.2.80"]);
    assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
    let missing = over_udp(&ours, &question("missing.example.com.")).await;
    assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
    // A service that is a name of others leads there in one answer.
    let alias = over_udp(&ours, &question("out.shop.svc.cluster.local.")).await;
    assert_eq!((alias.answers.len(), addresses(&alias)), (2, vec!["192.0.2.80".to_owned()]));

    drop(their_guard);
    let gone = async {
        while UdpSocket::bind(theirs.addresses()[0]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(addresses(&over_udp(&ours, &question("web.shop.svc.example.com.")).await), ["192.0.2.80"]);
}

#[tokio::test]
async fn beyond_the_limit_names_of_others_fail_at_once_and_those_of_the_cluster_do_not() {
    let (theirs, _their_guard) = elsewhere();
    let limits = Limits { forwards: 0, ..Limits::default() };
    let (ours, _guard) = start(Config { limits, ..config(settings(), theirs.addresses()) });
    ours.publish(zone_of(&settings(), [10, 213, 0, 20]));
    let failed = over_udp(&ours, &question("web.shop.svc.example.com.")).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(addresses(&over_udp(&ours, &question("web.shop.svc.cluster.local.")).await), ["10.213.0.20"]);
}

#[tokio::test]
async fn without_resolvers_names_of_others_are_refused_and_ourselves_is_no_resolver() {
    let (names, _guard) = started(&["10.213.0.10:53".parse().unwrap()]);
    let answer = over_udp(&names, &question("www.example.com.")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.recursion_available);
}

#[tokio::test]
async fn strangers_are_refused() {
    let (names, _guard) = started(&[]);
    let ask = question("web.shop.svc.cluster.local.").to_vec().unwrap();
    let code = async |source: &str| {
        let answer = names.answer(&ask, Transport::Quic, SocketAddr::new(source.parse().unwrap(), 9)).await.unwrap();
        Message::from_vec(&answer).unwrap().metadata.response_code
    };
    for friend in
        ["10.214.1.5", "172.17.0.2", "192.168.0.9", "127.0.0.1", "100.64.3.2", "::1", "fd00::7", "::ffff:10.0.0.1"]
    {
        assert_eq!(code(friend).await, ResponseCode::NoError, "{friend}");
    }
    for stranger in ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"] {
        assert_eq!(code(stranger).await, ResponseCode::Refused, "{stranger}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_what_to_do() {
    let (first, _guard) = started(&[]);
    let taken = first.addresses()[0];
    let config = Config { listen: vec![taken], ..config(settings(), &[]) };
    let error = Names::start(config, &Sevens, &TaskTracker::new(), &CancellationToken::new()).unwrap_err();
    let StartError::Bind(error) = error else { panic!("{error}") };
    let refusal = error.refusal();
    assert_eq!(refusal.what, format!("names cannot be answered on {taken} over UDP"));
    assert!(refusal.hint.unwrap().contains(&format!("sport = {}", taken.port())));
}

#[tokio::test]
async fn everything_stops_at_the_token() {
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let names = Names::start(config(settings(), &[]), &Sevens, &tasks, &shutdown).unwrap();
    let idle = TcpStream::connect(names.addresses()[0]).await.unwrap();
    shutdown.cancel();
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.unwrap();
    drop(idle);
}
