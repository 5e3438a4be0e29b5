//! Asks the cluster: one request, its answers; again if there was none.
//!
//! A request that changes something carries a random id, so asking again after an answer was lost does nothing twice.
//!
//! Invariant: whatever asks again asks the very same request, and gives up when the time is over.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use quorate_proto::{
    ids::RequestId,
    refusal::{Reason, Refusal},
    request::{Answer, Request},
    world::Random,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long to wait before asking again, the first time; doubled up to [`SLOWEST`].
const RETRY: Duration = Duration::from_millis(100);

/// The longest wait before asking again.
const SLOWEST: Duration = Duration::from_secs(1);

/// The answers to one request.
pub(crate) type Answers = BoxStream<'static, Result<Answer, Refusal>>;

/// Carries requests to a node of the cluster.
#[async_trait]
pub(crate) trait Transport: Send + Sync {
    /// Sends a request to any node that can be reached, and gives up by itself if there is none.
    ///
    /// # Errors
    /// `Unavailable` if nobody could be asked; in the stream, `Timeout` if the connection was lost before all was answered.
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal>;

    /// Takes in where nodes are, to ask those too if need be. Returns where the one is that answered last.
    fn learn(&self, endpoints: &[String]) -> Option<String>;
}

/// Asks the cluster.
#[derive(Clone)]
pub(crate) struct Client {
    transport: Arc<dyn Transport>,
    random: Arc<dyn Random>,
    patience: Duration,
}

impl Client {
    pub(crate) fn new(transport: Arc<dyn Transport>, random: Arc<dyn Random>, patience: Duration) -> Self {
        Self { transport, random, patience }
    }

    /// An id for a request that changes something.
    pub(crate) fn request_id(&self) -> RequestId {
        self.random.request_id()
    }

    /// Asks for something that is answered at once.
    ///
    /// # Errors
    /// The refusal, or `Unavailable` if nobody answered in time.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        let answers = self.ask_for_all(request.clone()).await?;
        answers.into_iter().next().ok_or_else(|| unexpected(&request, &Answer::End))
    }

    /// Asks for something that is answered in several parts, up to `End`, which is left out.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_for_all(&self, request: Request) -> Result<Vec<Answer>, Refusal> {
        let deadline = Instant::now() + self.patience;
        let (mut wait, mut last) = (RETRY, None);
        loop {
            let answers = match timeout_at(deadline, self.transport.ask(&request)).await {
                Ok(answers) => answers?, // the transport has tried for as long as makes sense
                Err(_) => return Err(self.too_late(last)),
            };
            let refusal = match timeout_at(deadline, whole(&request, answers)).await {
                Ok(Ok(answers)) => return Ok(answers),
                Ok(Err(refusal)) if may_pass(&refusal) => refusal,
                Ok(Err(refusal)) => return Err(refusal),
                Err(_) => return Err(self.too_late(last)),
            };
            if Instant::now() + wait >= deadline {
                return Err(self.too_late(Some(refusal)));
            }
            last = Some(refusal);
            sleep(wait).await;
            wait = (wait * 2).min(SLOWEST);
        }
    }

    fn too_late(&self, last: Option<Refusal>) -> Refusal {
        last.unwrap_or_else(|| {
            Refusal::new(
                Reason::Timeout,
                "the cluster did not answer",
                format!("there was no answer within {:?}", self.patience),
            )
            .hint("`quorate status` shows whether there is a leader; --request-timeout waits longer")
        })
    }

    /// Takes in where nodes are, and returns where the one is that answered last.
    pub(crate) fn learn(&self, endpoints: &[String]) -> Option<String> {
        self.transport.learn(endpoints)
    }

    /// For something that goes on: how long it may be without an answer.
    pub(crate) const fn patience(&self) -> Patience {
        Patience { limit: self.patience, lost: None, wait: RETRY }
    }

    /// Asks for something that goes on: a watch, a log. It is asked once; what ends it early, the stream tells.
    ///
    /// # Errors
    /// As [`Transport::ask`].
    pub(crate) async fn follow(&self, request: &Request) -> Result<Answers, Refusal> {
        let answers = match timeout(self.patience, self.transport.ask(request)).await {
            Ok(answers) => answers?,
            Err(_) => return Err(self.too_late(None)),
        };
        let told = answers.map(|answer| match answer {
            Ok(Answer::Refused(refusal)) => Err(refusal),
            answer => answer,
        });
        Ok(told.boxed())
    }
}

/// Measures how long something that goes on is without an answer, and waits between tries.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// Since when there is no answer.
    lost: Option<Instant>,
    wait: Duration,
}

impl Patience {
    /// There was an answer.
    pub(crate) const fn renew(&mut self) {
        self.lost = None;
        self.wait = RETRY;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// What the last try was refused with, if there was no answer for too long.
    pub(crate) async fn wait(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let lost = *self.lost.get_or_insert_with(Instant::now);
        if lost.elapsed() + self.wait >= self.limit {
            return Err(refusal);
        }
        sleep(self.wait).await;
        self.wait = (self.wait * 2).min(SLOWEST);
        Ok(())
    }
}

/// Whether another try may be answered otherwise: there was no quorum, or the answer was lost.
pub(crate) const fn may_pass(refusal: &Refusal) -> bool {
    matches!(refusal.reason, Reason::Unavailable | Reason::Timeout)
}

/// All answers, without `End`. A list that ends without it is only a part.
async fn whole(request: &Request, mut stream: Answers) -> Result<Vec<Answer>, Refusal> {
    let mut answers = Vec::new();
    while let Some(answer) = stream.try_next().await? {
        match answer {
            Answer::Refused(refusal) => return Err(refusal),
            Answer::End => return Ok(answers),
            answer => answers.push(answer),
        }
    }
    if answers.is_empty() || matches!(request, Request::List(_)) {
        return Err(Refusal::new(Reason::Timeout, "the answer did not arrive", "the node ended it too early")
            .hint("whether it was done is not known; asking again is safe"));
    }
    Ok(answers)
}

/// A node answered something that is no answer to the question: one of the two is another version.
pub(crate) fn unexpected(request: &Request, answer: &Answer) -> Refusal {
    // Only what they are: what is in them may be long, or secret.
    let name = |text: String| text.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    let because = format!("a node answered {} to {}", name(format!("{answer:?}")), name(format!("{request:?}")));
    Refusal::new(Reason::Internal, "the answer was not understood", because)
        .hint("compare `quorate --version` with the nodes' versions in `quorate nodes`")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    };

    use futures_util::stream;
    use quorate_proto::{
        ids::{ClusterId, NodeId},
        request::ClusterStatus,
        txn::Revision,
    };

    use super::*;

    /// Answers from a list, and remembers what it was asked. Whether pods are simulated, which is asked beside what is shown, it says
    /// by itself.
    #[derive(Default)]
    pub(crate) struct Recorded {
        simulated: AtomicBool,
        pub(crate) asked: Mutex<Vec<Request>>,
        answers: Mutex<Vec<Result<Vec<Answer>, Refusal>>>,
    }

    impl Recorded {
        pub(crate) fn new(answers: impl IntoIterator<Item = Result<Vec<Answer>, Refusal>>) -> Arc<Self> {
            let mut answers: Vec<_> = answers.into_iter().collect();
            answers.reverse();
            Arc::new(Self { answers: Mutex::new(answers), ..Self::default() })
        }

        /// The same, of a cluster whose pods are simulated.
        pub(crate) fn simulated(self: Arc<Self>) -> Arc<Self> {
            self.simulated.store(true, Ordering::Relaxed);
            self
        }

        pub(crate) fn client(self: &Arc<Self>) -> Client {
            Client::new(Arc::clone(self) as Arc<dyn Transport>, Arc::new(Counting::default()), Duration::from_secs(5))
        }

        pub(crate) fn requests(&self) -> Vec<Request> {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    /// Random enough for tests: every draw is another number.
    #[derive(Default)]
    struct Counting(Mutex<u8>);

    impl Random for Counting {
        fn fill(&self, buffer: &mut [u8]) {
            let mut drawn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *drawn += 1;
            buffer.fill(*drawn);
        }
    }

    #[async_trait]
    impl Transport for Recorded {
        async fn ask(&self, request: &Request) -> Result<Answers, Refusal> {
            let is_status =
                |answers: &Result<Vec<Answer>, _>| matches!(answers.as_deref(), Ok([Answer::Status(_), ..]));
            if request == &Request::Status && !self.answers.lock().unwrap().last().is_some_and(is_status) {
                let status = Answer::Status(ClusterStatus {
                    cluster: ClusterId::from(7),
                    node: NodeId::from(1),
                    node_name: "n1".to_owned(),
                    leader: None,
                    revision: Revision(42),
                    simulated: self.simulated.load(Ordering::Relaxed),
                    members: Vec::new(),
                });
                return Ok(stream::iter([Ok(status)]).boxed());
            }
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let next = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match next.unwrap_or_else(|| panic!("nothing is recorded for {request:?}")) {
                Ok(answers) => Ok(stream::iter(answers.into_iter().map(Ok)).boxed()),
                Err(refusal) if refusal.reason == Reason::Timeout => Ok(stream::iter([Err(refusal)]).boxed()),
                Err(refusal) => Err(refusal),
            }
        }

        fn learn(&self, _endpoints: &[String]) -> Option<String> {
            Some("n1:7443".to_owned())
        }
    }

    fn lost() -> Refusal {
        Refusal::new(Reason::Timeout, "the answer was lost", "the connection ended")
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_asked_for_again_with_the_same_request_id() {
        let recorded = Recorded::new([Err(lost()), Err(lost()), Ok(vec![Answer::Done])]);
        let client = recorded.client();
        let request = Request::RevokeToken { request: client.request_id(), id: "k".to_owned() };
        assert_eq!(client.ask(request.clone()).await, Ok(Answer::Done));
        assert_eq!(recorded.requests(), vec![request; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final_but_no_quorum_is_tried_until_the_time_is_over() {
        let forbidden = Refusal::new(Reason::Forbidden, "a", "b");
        let recorded = Recorded::new([Ok(vec![Answer::Refused(forbidden.clone())])]);
        assert_eq!(recorded.client().ask(Request::ListTokens).await, Err(forbidden));

        let no_quorum = Refusal::new(Reason::Unavailable, "a", "no leader");
        let recorded = Recorded::new(vec![Ok(vec![Answer::Refused(no_quorum.clone())]); 50]);
        assert_eq!(recorded.client().ask(Request::ListTokens).await, Err(no_quorum));
        assert!(recorded.requests().len() > 3);
    }
}
