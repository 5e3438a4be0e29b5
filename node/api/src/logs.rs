//! Finds out where a pod's log is, and passes it on in frames.
//!
//! Invariant: a frame of a log is at most [`FRAME`] bytes, whatever the node that runs the pod sends.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use quorate_proto::{
    k8s::api::core::v1::Pod,
    kinds::PODS,
    refusal::{Reason, Refusal},
    request::{Answer, Logs},
    snapshot::Snapshot,
};

use crate::message::{Subject, Verb, cut, not_found};

/// The most bytes in one frame.
const FRAME: usize = 64 << 10;

/// Where a log is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name of the node that runs the pod.
    pub(crate) node: String,
    /// The container that is meant.
    pub(crate) container: String,
}

/// Finds the node and the container.
pub(crate) fn place(logs: &Logs, snapshot: &Snapshot) -> Result<Place, Refusal> {
    let subject = Subject::new(Verb::Read, &PODS, &logs.pod);
    let stored = snapshot
        .find(&PODS, Some(&logs.namespace), &logs.pod)
        .ok_or_else(|| not_found(&subject, &PODS, Some(&logs.namespace), &logs.pod))?;
    let pod: Pod = stored.object.view().map_err(|error| subject.refuse(Reason::Internal, error.to_string()))?;
    let spec = pod.spec.unwrap_or_default();
    let names = || spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|container| &container.name);
    let container = match (&logs.container, &spec.containers[..]) {
        (Some(name), _) if names().any(|known| known == name) => name.clone(),
        (Some(name), _) => {
            let because = format!("the pod has no container `{}`", cut(name));
            let known = names().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(subject.refuse(Reason::BadRequest, because).hint(format!("it has {known}")));
        }
        (None, [only]) => only.name.clone(),
        (None, _) => {
            let known = names().map(String::as_str).collect::<Vec<_>>().join(", ");
            let because = "the pod has several containers, and none was named";
            return Err(subject.refuse(Reason::BadRequest, because).hint(format!("name one of {known} with `-c`")));
        }
    };
    match spec.node_name {
        Some(node) => Ok(Place { node, container }),
        None => Err(subject
            .refuse(Reason::Conflict, "the pod is not bound to a node yet, so nothing has run")
            .hint(format!("`quorate describe pod {}` says what it waits for", logs.pod))),
    }
}

/// What the node sends, as answers: `Data`, then `End`, or a refusal and nothing after it.
pub(crate) fn answers(pieces: BoxStream<'static, Result<Bytes, Refusal>>) -> impl Stream<Item = Answer> + Send {
    let ended = stream::once(std::future::ready(None));
    pieces
        .map(Some)
        .chain(ended)
        .scan(false, |over, piece| {
            let answers = match piece {
                _ if *over => return std::future::ready(None),
                Some(Ok(bytes)) => frames(bytes),
                Some(Err(refusal)) => {
                    *over = true;
                    vec![Answer::Refused(refusal)]
                }
                None => vec![Answer::End],
            };
            std::future::ready(Some(stream::iter(answers)))
        })
        .flatten()
}

fn frames(mut bytes: Bytes) -> Vec<Answer> {
    let mut frames = Vec::with_capacity(bytes.len().div_ceil(FRAME));
    while !bytes.is_empty() {
        frames.push(Answer::Data(bytes.split_to(bytes.len().min(FRAME))));
    }
    frames
}
