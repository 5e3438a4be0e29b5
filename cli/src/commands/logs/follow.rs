//! Follows a log for as long as the cluster lives: when the node that passes it on is lost, another one goes on after the last line.
//!
//! To know which line was the last, each is asked for with its time, which is taken away again unless it was asked for. Whoever goes on
//! asks from a while before that line, and passes over all up to it.
//!
//! Invariant: no line is left out or printed twice as long as the log still holds the last one that was printed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{self, Answer, Request},
    world::{Clock, Instant, Timestamp},
};

use super::Log;
use crate::client::{Answers, Client, Patience, may_pass, unexpected};

/// By how much the clock of the node that runs the pod may differ from ours, and how long a line may be on its way.
const MARGIN: Duration = Duration::from_secs(60);

/// Lines of two streams of a container may stand in the log a little out of order, but never by so much.
const DISORDER_SECONDS: i64 = 1;

/// The longest text of a time, with what separates it from the line.
const LONGEST_TIME: usize = 40;

/// A log that goes on.
pub(super) fn followed(client: &Client, clock: Arc<dyn Clock>, logs: request::Logs) -> Log {
    let following = Following {
        client: client.clone(),
        clock,
        patience: client.patience(),
        logs,
        answers: None,
        lines: Lines::default(),
        printed: None,
        skip: None,
        passing: false,
        ready: VecDeque::new(),
        ended: false,
    };
    let pieces = stream::unfold(Some(following), |following| async {
        let mut following = following?;
        match following.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(following))),
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal), None)),
        }
    });
    pieces.boxed()
}

struct Following {
    client: Client,
    clock: Arc<dyn Clock>,
    patience: Patience,
    logs: request::Logs,
    answers: Option<Answers>,
    lines: Lines,
    /// The last line that was printed.
    printed: Option<Printed>,
    /// Up to this line all was printed before the node was lost.
    skip: Option<(Timestamp, usize)>,
    /// The line that is being read is passed over.
    passing: bool,
    ready: VecDeque<Bytes>,
    ended: bool,
}

/// A line that was printed: it is known by its time, and by how many up to it have the same.
#[derive(Debug, Clone, Copy)]
struct Printed {
    /// `None`: the node told no time, so nobody can go on.
    time: Option<Timestamp>,
    same: usize,
    at: Instant,
}

impl Following {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            match self.step().await {
                Ok(()) => {}
                Err(refusal) => {
                    self.answers = None;
                    let known = self.printed.is_none_or(|printed| printed.time.is_some());
                    if !known || !may_pass(&refusal) {
                        return Err(refusal);
                    }
                    self.patience.wait(refusal).await?;
                }
            }
        }
    }

    /// Takes one answer.
    async fn step(&mut self) -> Result<(), Refusal> {
        let request = self.request();
        let answers = match &mut self.answers {
            Some(answers) => answers,
            None => {
                let answers = self.client.follow(&request).await?;
                self.lines = Lines::default();
                self.skip = self.printed.and_then(|printed| Some((printed.time?, printed.same)));
                self.answers.insert(answers)
            }
        };
        let pieces = match answers.next().await {
            Some(Ok(Answer::Data(bytes))) => self.lines.split(&bytes),
            Some(Ok(Answer::End)) => {
                self.ended = true;
                self.lines.rest()
            }
            Some(Ok(answer)) => return Err(unexpected(&request, &answer)),
            Some(Err(refusal)) => return Err(refusal),
            None => return Err(Refusal::new(Reason::Timeout, "the log broke off", "the node ended it too early")),
        };
        self.patience.renew();
        for piece in pieces {
            self.print(piece);
        }
        Ok(())
    }

    fn request(&self) -> Request {
        let mut logs = request::Logs { timestamps: true, ..self.logs.clone() };
        if let Some(Printed { time: Some(time), at, .. }) = self.printed {
            let by_clock = self.clock.wall().duration_since(time).as_secs();
            let passed = self.clock.now().since(at).as_secs();
            let since = u64::try_from(by_clock).unwrap_or_default().max(passed) + MARGIN.as_secs();
            logs.since_seconds = Some(u32::try_from(since).unwrap_or(u32::MAX));
            logs.tail = None;
        }
        Request::Logs(logs)
    }

    fn print(&mut self, piece: Piece) {
        if piece.begins {
            self.passing = self.was_printed(piece.time);
            if !self.passing {
                let before =
                    self.printed.filter(|printed| printed.time == piece.time).map_or(0, |printed| printed.same);
                self.printed = Some(Printed { time: piece.time, same: before + 1, at: self.clock.now() });
            }
        }
        if !self.passing {
            if self.logs.timestamps {
                self.ready.push_back(piece.stamp);
            }
            self.ready.push_back(piece.text);
        }
    }

    /// Whether a line that begins was printed before the node was lost.
    fn was_printed(&mut self, time: Option<Timestamp>) -> bool {
        let (Some((last, same)), Some(time)) = (self.skip, time) else { return false };
        if time == last {
            self.skip = (same > 1).then_some((last, same - 1));
            return true;
        }
        let gone = time.as_second() > last.as_second() + DISORDER_SECONDS;
        if gone {
            self.skip = None; // the log no longer holds what was printed last
        }
        !gone
    }
}

/// A line, or a part of it.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// A line begins with it, or a part that has a time of its own: engines cut long lines.
    begins: bool,
    time: Option<Timestamp>,
    /// The time as it was sent, with the space after it.
    stamp: Bytes,
    text: Bytes,
}

/// Splits a log into lines, and takes their times away from them.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line, too short to hold a time.
    short: BytesMut,
    inside: bool,
}

impl Lines {
    fn split(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.short.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while !self.short.is_empty() {
            let is_whole = self.inside || self.short.len() >= LONGEST_TIME || self.short.contains(&b'\n');
            if !is_whole && stamp(&self.short).is_none() {
                break;
            }
            pieces.push(self.piece());
        }
        pieces
    }

    /// What is left when the log ends.
    fn rest(&mut self) -> Vec<Piece> {
        if self.short.is_empty() { Vec::new() } else { vec![self.piece()] }
    }

    fn piece(&mut self) -> Piece {
        let (length, time) = stamp(&self.short).unzip();
        let begins = !self.inside || time.is_some();
        let stamp = self.short.split_to(length.unwrap_or_default()).freeze();
        let end = self.short.iter().position(|byte| *byte == b'\n').map_or(self.short.len(), |newline| newline + 1);
        let text = self.short.split_to(end).freeze();
        self.inside = text.last() != Some(&b'\n');
        Piece { begins, time, stamp, text }
    }
}

/// The time that a line begins with, and how long its text is, with the space after it.
fn stamp(line: &[u8]) -> Option<(usize, Timestamp)> {
    let space = line.iter().take(LONGEST_TIME).position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    Some((space + 1, time))
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::client::tests::Recorded;

    /// Noon of the first day of 2027, and a monotonic clock that stands still.
    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Instant {
            Instant::default()
        }

        fn wall(&self) -> Timestamp {
            "2027-01-01T12:00:00Z".parse().unwrap()
        }
    }

    fn logs(timestamps: bool) -> request::Logs {
        request::Logs {
            namespace: "default".to_owned(),
            pod: "web-1".to_owned(),
            container: None,
            follow: true,
            previous: false,
            tail: Some(10),
            since_seconds: None,
            timestamps,
            forwarded: false,
        }
    }

    /// Lines, each written so many seconds (with a fraction) after half past eleven, as an engine tells their times.
    fn wrote(lines: &[(&str, &str)]) -> Vec<Answer> {
        let lines = lines.iter().map(|(second, text)| format!("2027-01-01T11:30:{second:0<12}Z {text}"));
        lines.map(|line| Answer::Data(Bytes::from(line))).collect()
    }

    fn ended(mut answers: Vec<Answer>) -> Result<Vec<Answer>, Refusal> {
        answers.push(Answer::End);
        Ok(answers)
    }

    async fn printed(recorded: &Arc<Recorded>, timestamps: bool) -> Result<String, Refusal> {
        let log = followed(&recorded.client(), Arc::new(Noon), logs(timestamps));
        let pieces: Vec<Bytes> = log.try_collect().await?;
        Ok(String::from_utf8(pieces.concat()).unwrap())
    }

    fn lost() -> Result<Vec<Answer>, Refusal> {
        Err(Refusal::new(Reason::Timeout, "the answer did not arrive", "the connection was lost"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_goes_on_with_another_node_and_no_line_is_left_out_or_printed_twice() {
        let again =
            [("01.1", "one\n"), ("02.2", "two\n"), ("02.2", "again two\n"), ("02.2", "third\n"), ("03.", "end\n")];
        let recorded =
            Recorded::new([Ok(wrote(&[("02.2", "two\n"), ("02.2", "again two\n")])), lost(), ended(wrote(&again))]);
        assert_eq!(printed(&recorded, false).await.unwrap(), "two\nagain two\nthird\nend\n");
        let asked = recorded.requests().into_iter().map(|request| match request {
            Request::Logs(logs) => (logs.timestamps, logs.tail, logs.since_seconds),
            other => panic!("{other:?}"),
        });
        // The line is 29 minutes and 57.8 seconds old.
        let since = Some(29 * 60 + 57 + 60);
        assert_eq!(asked.collect::<Vec<_>>(), [(true, Some(10), None), (true, None, since), (true, None, since)]);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_out_of_order_are_known_again_and_one_that_is_gone_is_not_waited_for() {
        let disorder = [("05.2", "late\n"), ("05.1", "early\n"), ("05.15", "next\n")];
        let recorded = Recorded::new([Ok(wrote(&disorder[..2])), ended(wrote(&disorder))]);
        assert_eq!(printed(&recorded, false).await.unwrap(), "late\nearly\nnext\n");

        let recorded = Recorded::new([Ok(wrote(&[("05.1", "rotated\n")])), ended(wrote(&[("07.", "new\n")]))]);
        assert_eq!(printed(&recorded, false).await.unwrap(), "rotated\nnew\n");
    }

    #[tokio::test(start_paused = true)]
    async fn times_are_shown_if_they_were_asked_for_also_within_long_lines() {
        let long = || ended(wrote(&[("01.", "long "), ("01.", "line\n"), ("02.", "")]));
        let recorded = Recorded::new([long()]);
        assert_eq!(printed(&recorded, false).await.unwrap(), "long line\n");
        let recorded = Recorded::new([ended(wrote(&[("01.5", "one\n")]))]);
        assert_eq!(printed(&recorded, true).await.unwrap(), "2027-01-01T11:30:01.500000000Z one\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_without_times_is_shown_as_it_is_and_not_gone_on_with_by_guess() {
        let data = |text: &'static [u8]| Answer::Data(Bytes::from_static(text));
        let recorded = Recorded::new([ended(vec![data(b"a line\nan"), data(b"other\n"), data(b"\xff\x00")])]);
        let log = followed(&recorded.client(), Arc::new(Noon), logs(false));
        assert_eq!(log.try_collect::<Vec<Bytes>>().await.unwrap().concat(), b"a line\nanother\n\xff\x00");

        let recorded = Recorded::new([Ok(vec![data(b"a line\n")])]);
        assert_eq!(printed(&recorded, false).await.unwrap_err().what, "the log broke off");
    }
}
