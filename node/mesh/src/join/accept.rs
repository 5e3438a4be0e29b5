//! The member's side of a join: limits, then one request, then whatever [`Admission`] decides.
//!
//! Invariant: a stranger costs at most one frame of memory, ten seconds, and its share of the attempts.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_proto::{ids::NodeId, refusal::Refusal, wire::cap, world::Clock};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Admission, Answer, Ask, JoinAttempt, exporter, refuse, replace::ReplaceAttempt};
use crate::{
    frame,
    limits::{Attempts, Gauge, JOINS_PENDING},
    link::Close,
    stream::Stream,
};

/// How long a join may take, decision included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the answer may take to arrive.
const GOODBYE: Duration = Duration::from_secs(3);

pub(crate) struct Acceptor {
    admission: Arc<dyn Admission>,
    clock: Arc<dyn Clock>,
    attempts: Mutex<Attempts>,
    pending: Gauge,
}

impl Acceptor {
    pub(crate) fn new(admission: Arc<dyn Admission>, clock: Arc<dyn Clock>) -> Self {
        Self { admission, clock, attempts: Mutex::default(), pending: Gauge::default() }
    }

    /// Serves the one attempt of a connection, then closes it. `node` is whom the caller's certificate names, if it has one.
    pub(crate) async fn serve(&self, connection: &quinn::Connection, node: Option<NodeId>, source: SocketAddr) {
        let Ok(Ok(streams)) = timeout(DEADLINE, connection.accept_bi()).await else {
            return Close::Done.close(connection);
        };
        let mut stream = Stream::new(connection, TaskTracker::new().token(), streams);
        let answer = match timeout(DEADLINE, self.decide(connection, &mut stream, node, source)).await {
            Ok(Ok(grant)) => Answer::Granted(grant),
            Ok(Err(refusal)) => Answer::Refused(refusal),
            Err(_) => Answer::Refused(refuse::no_decision()),
        };
        if let Answer::Refused(refusal) = &answer {
            tracing::info!(%source, because = refusal.because, "a join was refused");
        }
        let goodbye = async {
            stream.write_frame(&answer, cap::CONTROL).await?;
            stream.finish()?;
            // The joiner closes when it has the answer.
            connection.closed().await;
            Ok::<_, frame::FrameError>(())
        };
        if let Ok(Err(error)) = timeout(GOODBYE, goodbye).await {
            tracing::debug!(%source, %error, "a joiner did not get its answer");
        }
        Close::Done.close(connection);
    }

    async fn decide(
        &self,
        connection: &quinn::Connection,
        stream: &mut Stream,
        node: Option<NodeId>,
        source: SocketAddr,
    ) -> Result<super::JoinGrantParts, Refusal> {
        let allowed = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).allow(source.ip(), self.clock.now());
        if !allowed {
            return Err(refuse::too_many("more than 5 joins per minute were tried from this address"));
        }
        let Some(_pending) = self.pending.enter(source.ip(), JOINS_PENDING, JOINS_PENDING) else {
            return Err(refuse::too_many("more than 64 joins are under way"));
        };
        let ask = frame::expect(&mut stream.receive, cap::CONTROL).await.map_err(refuse::malformed)?;
        let (request, proof) = match (ask, node) {
            (Ask::V1 { request, proof }, None) => (request, proof),
            (Ask::Replace(wish), Some(node)) => {
                return self.admission.replace(ReplaceAttempt { node, wish, source }).await;
            }
            _ => {
                return Err(refuse::malformed(
                    "a token is shown without a certificate, and a replacement asked for with one",
                ));
            }
        };
        let exporter = exporter(connection).ok_or_else(|| refuse::malformed("no keying material"))?;
        let attempt = JoinAttempt { request, exporter, proof, source };
        attempt.wish().map_err(refuse::malformed)?;
        self.admission.admit(attempt).await
    }
}
