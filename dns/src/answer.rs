//! What a question gets: pure, from a zone and a source of order.
//!
//! A name without the type asked for is "nothing of that type", with the start of authority, never "no such name": musl takes one such
//! denial as final. Before the first zone is known, a name of the cluster is a failure that passes, never a denial.
//!
//! Invariant: what is not ours is `Outside`; nothing here waits.

use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{
        DNSClass, LowerName, Name, RData, Record, RecordType,
        rdata::{HINFO, NS},
    },
};

use crate::{
    settings::Settings,
    shuffle::shuffle,
    zone::{Held, POD_TTL, SERVICE_TTL, Zone},
};

/// How many names one answer may lead through.
pub const MAX_ALIASES: usize = 8;
/// How many addresses ride along with an answer that names hosts.
const MAX_ADDITIONAL: usize = 20;

/// The sections of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// How it went.
    pub code: ResponseCode,
    /// Whether we are the ones who decide about this name.
    pub authoritative: bool,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Who decides, where there is nothing.
    pub authorities: Vec<Record>,
    /// What the asker would ask next.
    pub additionals: Vec<Record>,
}

impl Answer {
    /// An answer without records.
    #[must_use]
    pub fn empty(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

/// What is to be done with a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Answer it so.
    Answer(Answer),
    /// It is not ours: others know.
    Outside,
    /// The answer so far leads to a name that others know.
    Alias(Answer, Name),
}

/// Decides what a question gets. `number` draws random numbers: the order among equals.
pub fn answer(settings: &Settings, zone: Option<&Zone>, question: &Query, mut number: impl FnMut() -> u64) -> Verdict {
    if question.query_class != DNSClass::IN {
        return Verdict::Answer(Answer::empty(ResponseCode::Refused));
    }
    let kind = question.query_type;
    if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return Verdict::Answer(Answer::empty(ResponseCode::NotImp));
    }
    let mut answer = Answer { authoritative: true, ..Answer::default() };
    let mut name = question.name.clone();
    for _ in 0..MAX_ALIASES {
        let lower = LowerName::new(&name);
        let Some(apex) = settings.apex(&lower) else {
            return if answer.answers.is_empty() { Verdict::Outside } else { Verdict::Alias(answer, name) };
        };
        let Some(zone) = zone else {
            return Verdict::Answer(Answer::empty(ResponseCode::ServFail));
        };
        match step(zone, &apex, &name, &lower, kind, &mut number) {
            Step::Records(records) => {
                answer.additionals = additionals(zone, &records);
                answer.answers.extend(records);
                return Verdict::Answer(answer);
            }
            Step::Alias(record, target) => {
                answer.answers.push(*record);
                name = target;
            }
            Step::Nothing(code) => {
                answer.code = code;
                answer.authorities.push(Record::from_rdata(apex.into(), POD_TTL, zone.authority()));
                return Verdict::Answer(answer);
            }
        }
    }
    Verdict::Answer(Answer::empty(ResponseCode::ServFail))
}

enum Step {
    Records(Vec<Record>),
    Alias(Box<Record>, Name),
    Nothing(ResponseCode),
}

fn step(
    zone: &Zone,
    apex: &LowerName,
    name: &Name,
    lower: &LowerName,
    kind: RecordType,
    number: &mut impl FnMut() -> u64,
) -> Step {
    let is_apex = apex == lower;
    let held = match zone.find(lower) {
        Some(held) => held,
        None if is_apex => &[],
        None => return Step::Nothing(ResponseCode::NXDomain),
    };
    let record = |data, ttl| Record::from_rdata(name.clone(), ttl, data);
    let records = match (kind, zone.name_server()) {
        // A name's every record is more than anyone needs who asks for `ANY` (RFC 8482, 4.2).
        (RecordType::ANY, _) => {
            vec![record(RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())), SERVICE_TTL)]
        }
        (RecordType::SOA, _) if is_apex => vec![record(zone.authority(), POD_TTL)],
        (RecordType::NS, Some(server)) if is_apex => vec![record(RData::NS(NS(server)), SERVICE_TTL)],
        _ => in_order(held.iter().filter(|held| held.data.record_type() == kind), number)
            .into_iter()
            .map(|held| record(held.data.clone(), held.ttl))
            .collect(),
    };
    if !records.is_empty() {
        return Step::Records(records);
    }
    let alias = held.iter().find_map(|held| match &held.data {
        RData::CNAME(target) => Some((Box::new(record(held.data.clone(), held.ttl)), target.0.clone())),
        _ => None,
    });
    match alias {
        Some((record, target)) => Step::Alias(record, target),
        None => Step::Nothing(ResponseCode::NoError),
    }
}

/// What leads to this node first, shuffled; then the rest, shuffled.
fn in_order<'a>(held: impl Iterator<Item = &'a Held>, number: &mut impl FnMut() -> u64) -> Vec<&'a Held> {
    let (mut here, mut rest): (Vec<&Held>, Vec<&Held>) = held.partition(|held| held.here);
    shuffle(&mut here, &mut *number);
    shuffle(&mut rest, number);
    here.append(&mut rest);
    here
}

/// The addresses of the hosts that the records name.
fn additionals(zone: &Zone, records: &[Record]) -> Vec<Record> {
    let targets = records.iter().filter_map(|record| match &record.data {
        RData::SRV(target) => Some(&target.target),
        RData::NS(server) => Some(&server.0),
        _ => None,
    });
    let addresses = targets.flat_map(|target| {
        let held = zone.find(&LowerName::new(target)).unwrap_or_default();
        held.iter()
            .filter(|held| matches!(held.data, RData::A(_)))
            .map(|held| Record::from_rdata(target.clone(), held.ttl, held.data.clone()))
    });
    let mut found: Vec<Record> = Vec::new();
    for address in addresses {
        if found.len() < MAX_ADDITIONAL && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests;
