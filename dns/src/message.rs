//! DNS messages around hickory's own reading and writing: which ones are questions, and how much of an answer its asker takes.
//!
//! Invariant: an answer never exceeds what its transport and the asker's EDNS allow, and says so when it was cut; whoever asks with EDNS
//! is answered with EDNS, cut or not.

use std::slice::Iter;

use bytes::Bytes;
use hickory_proto::{
    ProtoError,
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::Record,
    serialize::binary::{BinDecodable as _, BinDecoder, BinEncoder},
};
use hickory_server::{
    server::{Request, ResponseInfo},
    zone_handler::{MessageResponse, MessageResponseBuilder, Queries},
};

use crate::{answer::Answer, names::Transport};

/// Bytes of the longest question that is answered. A name has at most 255; the rest is room for EDNS options.
pub(crate) const MAX_QUESTION: usize = 4096;
/// Bytes of a UDP answer beyond which it may be lost in fragments (DNS flag day 2020).
const MAX_UDP_ANSWER: u16 = 1232;
/// Bytes of a UDP answer to an asker that says nothing about its size (RFC 1035, 4.2.1).
const MIN_UDP_ANSWER: u16 = 512;
/// How many additional records a question may bring: EDNS, a cookie, a signature.
const MAX_ADDITIONAL: u16 = 4;

/// What the header of a message makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    /// It may be a question; if it cannot be read, it is to be answered by a code alone.
    Question(Metadata),
    /// Not to be answered: no header, or itself an answer. Answering answers makes loops (RUSTSEC-2023-0041).
    Silence,
    /// To be answered by a code alone.
    Error(Metadata, ResponseCode),
}

/// Judges a message by its header: nothing is allocated for what the header only claims to bring.
pub(crate) fn screen(message: &[u8]) -> Screen {
    let Ok(Header { metadata, counts }) = Header::read(&mut BinDecoder::new(message)) else {
        return Screen::Silence;
    };
    if metadata.message_type == MessageType::Response {
        return Screen::Silence;
    }
    if metadata.op_code != OpCode::Query {
        return Screen::Error(metadata, ResponseCode::NotImp);
    }
    let plausible = counts.queries == 1
        && counts.answers == 0
        && counts.authorities <= 1
        && counts.additionals <= MAX_ADDITIONAL
        && message.len() <= MAX_QUESTION;
    if plausible { Screen::Question(metadata) } else { Screen::Error(metadata, ResponseCode::FormErr) }
}

/// A header and nothing else: for messages whose question was not read.
pub(crate) fn bare(asked: &Metadata, code: ResponseCode) -> Bytes {
    let mut message = Message::response(asked.id, asked.op_code);
    message.metadata.recursion_desired = asked.recursion_desired;
    message.metadata.response_code = code;
    message.to_vec().map_or_else(|_| Bytes::new(), Bytes::from)
}

/// A response as hickory writes it.
type Written<'a> = MessageResponse<'a, 'a, Iter<'a, Record>, Iter<'a, Record>, Iter<'a, Record>, Iter<'a, Record>>;

/// An answer in the shape its asker takes.
pub(crate) struct Response<'a> {
    queries: &'a Queries,
    metadata: Metadata,
    edns: Option<Edns>,
    answer: Answer,
    room: u16,
}

impl<'a> Response<'a> {
    /// The answer to a request: whole, or else without what was not asked for, or else as much of it as leaves room for EDNS.
    pub(crate) fn new(request: &'a Request, answer: Answer, recursion: bool, transport: Transport) -> Self {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = recursion;
        metadata.response_code = answer.code;
        let datagram = request.max_payload().clamp(MIN_UDP_ANSWER, MAX_UDP_ANSWER);
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            // hickory cuts a UDP answer at the size the answer itself names.
            edns.set_max_payload(datagram).set_version(0);
            edns
        });
        let room = match transport {
            Transport::Udp => datagram,
            Transport::Tcp | Transport::Quic => u16::MAX,
        };
        let mut response = Self { queries: &request.queries, metadata, edns, answer, room };
        if let Err(error) = response.fit() {
            let name = request.queries.queries().first().map(|query| query.name().to_string());
            tracing::warn!(name, %error, "an answer could not be written");
            response.metadata.response_code = ResponseCode::ServFail;
            response.answer = Answer::empty(ResponseCode::ServFail);
        }
        response
    }

    /// For hickory to send.
    pub(crate) fn message(&self) -> Written<'_> {
        let Answer { answers, authorities, additionals, .. } = &self.answer;
        let builder = MessageResponseBuilder::new(self.queries, self.edns.as_ref());
        builder.build(self.metadata, answers, authorities, &[], additionals)
    }

    /// For a stream of our own.
    pub(crate) fn bytes(&self) -> Bytes {
        self.emit().map_or_else(|_| bare(&self.metadata, ResponseCode::ServFail), |(_, bytes)| bytes.into())
    }

    fn emit(&self) -> Result<(ResponseInfo, Vec<u8>), ProtoError> {
        let mut bytes = Vec::with_capacity(usize::from(MIN_UDP_ANSWER));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.room);
        let info = self.message().destructive_emit(&mut encoder)?;
        Ok((info, bytes))
    }

    /// Gives up records until all that is left fits. hickory cuts from the end, and EDNS comes last: so it is tried out first.
    fn fit(&mut self) -> Result<(), ProtoError> {
        if !self.emit()?.0.truncation {
            return Ok(());
        }
        self.answer.additionals.clear();
        let (cut, _) = self.emit()?;
        if !cut.truncation {
            return Ok(());
        }
        self.metadata.truncation = true;
        self.answer.authorities.clear();
        self.answer.answers.truncate(cut.counts().answers.into());
        // A record is longer than an empty EDNS one, so giving up the last is enough.
        if self.emit()?.0.counts().additionals < u16::from(self.edns.is_some()) {
            self.answer.answers.pop();
        }
        Ok(())
    }
}
