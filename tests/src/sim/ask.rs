//! Asks a simulated cluster as its users would.
//!
//! Invariant: what was answered is noted as a promise; a user who got no answer was promised nothing.

use futures_util::StreamExt as _;
use quorate_api::Caller;
use quorate_proto::{
    key::Key,
    object::Object,
    refusal::{Reason, Refusal},
    request::{Answer, Request},
    world::Random as _,
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Sim, promise};

/// What is asked for, and whether something is wrong while it is.
struct Question {
    key: Option<Key>,
    faulty: bool,
}

/// A request whose answer nobody has waited for yet.
pub(super) struct Pending {
    question: Question,
    answer: oneshot::Receiver<Result<Answer, Refusal>>,
}

impl Sim {
    /// From now on requests go to this host, while it is on, also if it is cut off.
    pub fn via(&mut self, name: &str) {
        self.via = Some(self.host(name).name().to_owned());
    }

    /// Asks a node as a user would, and returns the first answer.
    ///
    /// # Errors
    /// If the request was refused.
    pub async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        let (question, answer) = self.begin(request);
        let answer = answer.await;
        self.note(question, &answer);
        answer
    }

    /// Asks, and does not wait for the answer: [`Sim::answered`] does.
    pub fn ask_meanwhile(&mut self, request: Request) {
        let (question, asked) = self.begin(request);
        let (sender, answer) = oneshot::channel();
        self.tasks.spawn(async move { drop(sender.send(asked.await)) });
        self.pending.push(Pending { question, answer });
    }

    /// Waits for the answers to all that was asked meanwhile.
    pub async fn answered(&mut self) {
        for Pending { question, answer } in std::mem::take(&mut self.pending) {
            self.note(question, &answer.await.expect("a task that answers"));
        }
    }

    fn begin(&self, request: Request) -> (Question, impl Future<Output = Result<Answer, Refusal>> + use<>) {
        let via = self.via.as_deref().map(|name| self.host(name)).filter(|host| host.is_on());
        let api = via.unwrap_or_else(|| self.any()).services().api.clone();
        let faulty = self.world.network.is_faulty() || self.hosts.values().any(|host| !host.is_on());
        let question = Question { key: promise::key(&request), faulty };
        let answer = async move {
            match api.handle(Caller::User("sim".to_owned()), request).next().await {
                Some(Answer::Refused(refusal)) => Err(refusal),
                Some(answer) => Ok(answer),
                None => Err(Refusal::new(Reason::Timeout, "nobody knows", "the node ended without an answer")),
            }
        };
        (question, answer)
    }

    fn note(&self, question: Question, answer: &Result<Answer, Refusal>) {
        if question.faulty && question.key.is_some() {
            self.coverage.answered(answer);
        }
        self.acknowledged.note(question.key, answer);
    }

    /// Applies an object as `quorate apply` would.
    ///
    /// # Errors
    /// If it was refused.
    pub async fn apply(&self, object: Value) -> Result<(), Refusal> {
        let object = Object::from_value(object).expect("an object").to_document();
        let request = Request::Apply { request: self.world.random.request_id(), object, dry_run: false };
        self.ask(request).await.map(drop)
    }

    /// A new id for a mutating request.
    #[must_use]
    pub fn request_id(&self) -> quorate_proto::ids::RequestId {
        self.world.random.request_id()
    }
}
