//! DNS messages: a question read from bytes, an answer written into as many as the asker takes.
//!
//! Invariant: counts in a header are checked before anything is allocated for them; an answer never exceeds what its transport and the
//! asker's EDNS allow, and says so when it was cut.

use bytes::Bytes;
use hickory_proto::{
    ProtoError,
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts},
    rr::Record,
    serialize::binary::{BinDecodable as _, BinDecoder, BinEncoder},
};

use crate::{answer::Answer, names::Transport};

/// Bytes of the longest question we read. A name has at most 255; the rest is room for EDNS options.
pub(crate) const MAX_QUESTION: usize = 4096;
/// Bytes of a UDP answer beyond which it may be lost in fragments (DNS flag day 2020).
pub(crate) const MAX_UDP_ANSWER: u16 = 1232;
/// Bytes of a UDP answer to an asker that says nothing about its size (RFC 1035, 4.2.1).
const MIN_UDP_ANSWER: u16 = 512;
/// Bytes of an empty EDNS record.
const EDNS_SIZE: usize = 11;
/// How many additional records a question may bring: EDNS, a cookie, a signature.
const MAX_ADDITIONAL: u16 = 4;

/// A question that was read.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    metadata: Metadata,
    edns: Option<Edns>,
    pub(crate) query: Query,
}

/// What bytes turned out to be.
#[derive(Debug)]
pub(crate) enum Read {
    /// A question.
    Question(Box<Question>),
    /// Not to be answered: no header, or itself an answer. Answering answers makes loops (RUSTSEC-2023-0041).
    Silence,
    /// To be answered by a code alone.
    Error(Bytes),
}

/// Reads a message.
pub(crate) fn read(bytes: &[u8]) -> Read {
    let Ok(Header { metadata, counts }) = Header::read(&mut BinDecoder::new(bytes)) else {
        return Read::Silence;
    };
    if metadata.message_type == MessageType::Response {
        return Read::Silence;
    }
    let error = |code| Read::Error(bare(&metadata, code));
    if metadata.op_code != OpCode::Query {
        return error(ResponseCode::NotImp);
    }
    let plausible = counts.queries == 1
        && counts.answers == 0
        && counts.authorities <= 1
        && counts.additionals <= MAX_ADDITIONAL
        && bytes.len() <= MAX_QUESTION;
    let message = plausible.then(|| Message::from_vec(bytes).ok()).flatten();
    let Some((mut message, query)) =
        message.and_then(|mut message| message.queries.pop().map(|query| (message, query)))
    else {
        return error(ResponseCode::FormErr);
    };
    let edns = message.edns.take();
    Read::Question(Box::new(Question { metadata, edns, query }))
}

/// Writes the answer to a question.
pub(crate) fn write(question: &Question, answer: &Answer, recursion: bool, transport: Transport) -> Bytes {
    let mut metadata = Metadata::response_from_request(&question.metadata);
    metadata.authoritative = answer.authoritative;
    metadata.recursion_available = recursion;
    metadata.response_code = answer.code;
    let edns = question.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_ANSWER).set_version(0);
        if asked.version() > 0 {
            metadata.response_code = ResponseCode::BADVERS;
        }
        edns
    });
    let room = match (transport, &question.edns) {
        (Transport::Udp, Some(asked)) => asked.max_payload().clamp(MIN_UDP_ANSWER, MAX_UDP_ANSWER),
        (Transport::Udp, None) => MIN_UDP_ANSWER,
        (Transport::Tcp | Transport::Quic, _) => u16::MAX,
    };
    let parts = Parts { metadata, query: &question.query, edns, room };
    let written = match metadata.response_code {
        ResponseCode::BADVERS => parts.emit(&[], &[], &[]).map(|(_, bytes)| bytes),
        _ => fit(parts, answer),
    };
    written.unwrap_or_else(|error| {
        tracing::warn!(name = %question.query.name, %error, "an answer could not be written");
        bare(&metadata, ResponseCode::ServFail)
    })
}

/// Writes the answer whole, or else without what was not asked for, or else as much of it as leaves room for EDNS.
fn fit(mut parts: Parts<'_>, answer: &Answer) -> Result<Bytes, ProtoError> {
    let (header, bytes) = parts.emit(&answer.answers, &answer.authorities, &answer.additionals)?;
    if !header.metadata.truncation {
        return Ok(bytes);
    }
    let (header, bytes) = parts.emit(&answer.answers, &answer.authorities, &[])?;
    if !header.metadata.truncation {
        return Ok(bytes);
    }
    parts.metadata.truncation = true;
    let mut written = usize::from(header.counts.answers);
    loop {
        let (header, bytes) = parts.emit(&answer.answers[..written], &[], &[])?;
        if written == 0 || (header.counts.additionals > 0) == parts.edns.is_some() {
            return Ok(bytes);
        }
        // A record is longer than an empty EDNS one, so giving up the last is enough.
        written -= 1;
    }
}

struct Parts<'a> {
    metadata: Metadata,
    query: &'a Query,
    edns: Option<Edns>,
    room: u16,
}

impl Parts<'_> {
    fn emit(
        &self,
        answers: &[Record],
        authorities: &[Record],
        additionals: &[Record],
    ) -> Result<(Header, Bytes), ProtoError> {
        let mut bytes = Vec::with_capacity(usize::from(MIN_UDP_ANSWER) + EDNS_SIZE);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.room);
        let header = emit_message_parts(
            &self.metadata,
            &mut std::iter::once(self.query),
            &mut answers.iter(),
            &mut authorities.iter(),
            &mut additionals.iter(),
            self.edns.as_ref(),
            None,
            &mut encoder,
        )?;
        Ok((header, bytes.into()))
    }
}

/// A header and nothing else: for messages whose question could not be read.
fn bare(asked: &Metadata, code: ResponseCode) -> Bytes {
    let mut message = Message::response(asked.id, asked.op_code);
    message.metadata.recursion_desired = asked.recursion_desired;
    message.metadata.response_code = code;
    message.to_vec().map_or_else(|_| Bytes::new(), Bytes::from)
}
