//! Questions about names, asked on a host as any program there asks: over UDP and over TCP (RFC 1035 §4.2).
//!
//! Invariant: a question is asked once; an answer that gets lost is a failure.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, Record, RecordType},
};
use nix::sched::{CloneFlags, setns};

/// The cluster's name server, on every node.
pub const SERVER: &str = "10.213.0.10:53";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a question travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream, each message after its length.
    Tcp,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// `NoError`, `NXDomain`, …
    pub code: String,
    /// The data of the records that answer.
    pub records: Vec<String>,
    /// The types of the records that say who decided.
    pub authority: Vec<RecordType>,
}

/// Asks for a name on a host.
///
/// # Errors
/// If no answer comes.
///
/// # Panics
/// If there is no such host, or the answer is none.
pub fn ask(host: &str, transport: Transport, name: &str, kind: RecordType) -> io::Result<Answered> {
    let mut question = Message::query();
    question.metadata.id = 4711;
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let question = question.to_vec().unwrap();
    let bytes = on(host, || match transport {
        Transport::Udp => over_udp(&question),
        Transport::Tcp => over_tcp(&question),
    })?;
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, 4711, "the answer to another question");
    Ok(Answered {
        code: format!("{:?}", answer.metadata.response_code),
        records: answer.answers.iter().map(|record: &Record| record.data.to_string()).collect(),
        authority: answer.authorities.iter().map(Record::record_type).collect(),
    })
}

/// Does something in the network of a host: a thread enters it and ends there.
///
/// # Panics
/// If there is no such host.
pub fn on<T: Send>(host: &str, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/quorate-{host}")).unwrap();
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        entered.join().unwrap()
    })
}

fn over_udp(question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(SERVER)?;
    socket.send(question)?;
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn over_tcp(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SERVER)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes())?;
    stream.write_all(question)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
