//! Follows objects for as long as the cluster lives: when the node that is asked is lost, another one goes on.
//!
//! Invariant: every change is told once, whole revisions at a time; what cannot be told because it is compacted is said, and what there
//! is then follows, as for whoever lists and watches anew.

use futures_util::StreamExt as _;
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{Answer, Read, Request, Selection},
    txn::Revision,
};

use crate::client::{Answers, Client, Patience, may_pass, unexpected};

/// What a watch tells next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What exists, at first; then what one revision or a few changed.
    Changes(Vec<Answer>),
    /// It was cut off for too long, and the changes since are no longer kept: what exists follows.
    Compacted,
}

/// See the module.
pub(crate) struct Watching {
    client: Client,
    selection: Selection,
    /// The last bookmark: all up to it was told.
    after: Option<Revision>,
    answers: Option<Answers>,
    /// Told by the node, and not yet followed by a bookmark.
    pending: Vec<Answer>,
    ended: bool,
    patience: Patience,
}

impl Watching {
    pub(crate) fn new(client: &Client, selection: Selection) -> Self {
        let patience = client.patience();
        Self {
            client: client.clone(),
            selection,
            after: None,
            answers: None,
            pending: Vec::new(),
            ended: false,
            patience,
        }
    }

    /// Waits for what comes next; `None` if the node has ended the watch in order.
    ///
    /// # Errors
    /// The refusal, or why nobody could be asked for too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Refusal> {
        while !self.ended {
            match self.step().await {
                Ok(Some(told)) => return Ok(Some(told)),
                Ok(None) => {}
                Err(refusal) => {
                    self.answers = None;
                    self.pending.clear();
                    if refusal.reason == Reason::Expired && self.after.take().is_some() {
                        return Ok(Some(Told::Compacted));
                    }
                    if !may_pass(&refusal) {
                        return Err(refusal);
                    }
                    self.patience.wait(refusal).await?;
                }
            }
        }
        Ok(None)
    }

    /// Takes one answer; `None` if it is not time to tell.
    async fn step(&mut self) -> Result<Option<Told>, Refusal> {
        let answers = match &mut self.answers {
            Some(answers) => answers,
            None => self.answers.insert(self.client.follow(&self.request()).await?),
        };
        match answers.next().await {
            Some(Ok(Answer::Bookmark(revision))) => {
                self.patience.renew();
                match self.after.replace(revision) {
                    Some(_) => Ok(self.told()),
                    // That nothing exists is news, too.
                    None => Ok(Some(Told::Changes(std::mem::take(&mut self.pending)))),
                }
            }
            Some(Ok(Answer::End)) => {
                self.ended = true;
                Ok(self.told())
            }
            Some(Ok(answer)) => {
                self.pending.push(answer);
                Ok(None)
            }
            Some(Err(refusal)) => Err(refusal),
            None => Err(Refusal::new(Reason::Timeout, "the watch ended", "the node broke it off")),
        }
    }

    fn told(&mut self) -> Option<Told> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() { None } else { Some(Told::Changes(pending)) }
    }

    /// The node told what is no part of a watch.
    pub(crate) fn unexpected(&self, answer: &Answer) -> Refusal {
        unexpected(&self.request(), answer)
    }

    fn request(&self) -> Request {
        // Whatever was told once is not told again from an older state.
        let read = self.after.map_or(self.selection.read, Read::AtLeast);
        Request::WatchFrom { selection: Selection { read, ..self.selection.clone() }, after: self.after }
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::request::{Shape, Table, TableRow};

    use super::*;
    use crate::client::tests::Recorded;

    fn row(name: &str) -> Answer {
        let row = TableRow { namespace: String::new(), name: name.to_owned(), cells: vec![name.to_owned()] };
        Answer::Table(Table { columns: Vec::new(), rows: vec![row] })
    }

    fn selection() -> Selection {
        Selection {
            kind: "pods".to_owned(),
            namespace: None,
            labels: String::new(),
            fields: String::new(),
            shape: Shape::Table,
            read: Read::Linearizable,
        }
    }

    fn mark(revision: u64) -> Answer {
        Answer::Bookmark(Revision(revision))
    }

    fn changes(names: &[&str]) -> Option<Told> {
        Some(Told::Changes(names.iter().map(|name| row(name)).collect()))
    }

    fn lost() -> Result<Vec<Answer>, Refusal> {
        Err(Refusal::new(Reason::Timeout, "the answer did not arrive", "the connection was lost"))
    }

    /// From which revision each try began, and what it may read.
    fn asked(recorded: &Recorded) -> Vec<(Option<u64>, Read)> {
        let requests = recorded.requests().into_iter();
        let asked = requests.map(|request| match request {
            Request::WatchFrom { selection, after } => (after.map(|revision| revision.0), selection.read),
            other => panic!("{other:?}"),
        });
        asked.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_goes_on_with_another_node_and_tells_every_change_once() {
        let recorded = Recorded::new([
            // The node is lost after half of a revision was told: it is told again, whole.
            Ok(vec![row("a"), row("b"), mark(7), row("c"), mark(8), row("half")]),
            lost(),
            Err(Refusal::new(Reason::Unavailable, "the cluster was not reached", "nobody answers")),
            Ok(vec![mark(8), row("half"), row("whole"), mark(9), Answer::End]),
        ]);
        let mut watching = Watching::new(&recorded.client(), selection());
        for expected in [changes(&["a", "b"]), changes(&["c"]), changes(&["half", "whole"]), None] {
            assert_eq!(watching.next().await, Ok(expected));
        }
        let again = (Some(8), Read::AtLeast(Revision(8)));
        assert_eq!(asked(&recorded), [(None, Read::Linearizable), again, again, again]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_compacted_is_said_and_what_there_is_follows() {
        let expired = Refusal::new(Reason::Expired, "the watch ended", "revisions up to 90 are compacted");
        let recorded = Recorded::new([
            Ok(vec![row("a"), mark(7)]),
            Ok(vec![Answer::Refused(expired)]),
            Ok(vec![row("b"), mark(99), Answer::End]),
        ]);
        let mut watching = Watching::new(&recorded.client(), selection());
        for expected in [changes(&["a"]), Some(Told::Compacted), changes(&["b"]), None] {
            assert_eq!(watching.next().await, Ok(expected));
        }
        assert_eq!(asked(&recorded)[2], (None, Read::Linearizable));
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_answers_for_too_long_the_watch_ends_and_says_why() {
        let recorded = Recorded::new([Ok(vec![row("a"), mark(7)])].into_iter().chain(vec![lost(); 50]));
        let mut watching = Watching::new(&recorded.client(), selection());
        assert_eq!(watching.next().await, Ok(changes(&["a"])));
        let begun = tokio::time::Instant::now();
        assert_eq!(watching.next().await.unwrap_err().because, "the connection was lost");
        assert!((3..=5).contains(&begun.elapsed().as_secs()), "as long as for any answer");
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_nothing_is_told_at_once() {
        let recorded = Recorded::new([Ok(vec![mark(7), mark(107), row("a"), mark(108), Answer::End])]);
        let mut watching = Watching::new(&recorded.client(), selection());
        for expected in [changes(&[]), changes(&["a"]), None] {
            assert_eq!(watching.next().await, Ok(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_it() {
        let refused = Refusal::new(Reason::BadRequest, "pods were not read", "`a=` is no selector");
        let recorded = Recorded::new([Ok(vec![Answer::Refused(refused.clone())])]);
        assert_eq!(Watching::new(&recorded.client(), selection()).next().await, Err(refused));
    }
}
