//! Who may ask for what. Certificates say who asks; this says what they get.
//!
//! Users may do everything that the cluster does not keep to itself; nodes read, show that they live, and report what they run.
//!
//! Invariant: every request is decided here, in one match without a wildcard, before anything else is done with it.

use quorate_proto::{
    ids::ClusterId,
    kinds::{Access, Kind, NODES, PODS},
    object::Object,
    refusal::{Reason, Refusal},
    request::{Fact, Request},
    snapshot::Snapshot,
};

use crate::{
    message::{Subject, Verb, cut},
    seam::Caller,
};

/// Decides whether the caller may ask for this. `snapshot` says which pods a reporting node runs; other requests do not need it.
pub(crate) fn check(
    caller: &Caller,
    request: &Request,
    snapshot: &Snapshot,
    cluster: ClusterId,
) -> Result<(), Refusal> {
    match request {
        Request::Get { .. }
        | Request::List(_)
        | Request::Watch(_)
        | Request::WatchFrom { .. }
        | Request::Logs(_)
        | Request::Status
        | Request::Endpoints
        | Request::Overview { .. } => Ok(()),
        Request::Apply { .. }
        | Request::Create { .. }
        | Request::Replace { .. }
        | Request::Patch { .. }
        | Request::Delete { .. }
        | Request::Scale { .. }
        | Request::Leave { .. }
        | Request::CreateToken { .. }
        | Request::ListTokens
        | Request::RevokeToken { .. }
        | Request::Backup { .. } => only_users(caller),
        Request::Store(request) => {
            only_users(caller)?;
            request.check().map_err(|limit| {
                forbidden(caller, limit.to_string())
                    .hint("objects of the cluster are read and changed by kind and name")
            })
        }
        Request::Heartbeat { .. } => only_nodes(caller),
        Request::Report { facts, .. } => {
            only_nodes(caller)?;
            facts.iter().try_for_each(|fact| reports_its_own(caller, fact, snapshot, cluster))
        }
    }
}

/// Whether a user may do this with objects of a kind.
pub(crate) fn kind_allows(verb: Verb, kind: &Kind, subject: &Subject) -> Result<(), Refusal> {
    let changes = match verb {
        Verb::Read => return Ok(()),
        Verb::Apply | Verb::Create => false, // whether there is anything to apply to is not known yet
        Verb::Replace | Verb::Patch | Verb::Delete | Verb::Scale | Verb::Leave => true,
    };
    match (kind.access, changes) {
        (Access::Full, _) | (Access::Adopted, true) => Ok(()),
        (Access::Adopted, false) => Err(subject
            .refuse(Reason::Forbidden, format!("a {} is made when a machine joins, not by a manifest", kind.singular))
            .hint("run `quorate join` on the machine; change an existing one by a patch")),
        (Access::Observed, _) => Err(subject
            .refuse(Reason::Forbidden, format!("{} are written by the cluster; they can only be read", kind.plural))),
        (Access::Internal, _) => {
            Err(subject.refuse(Reason::Forbidden, format!("{} are the cluster's own records", kind.plural)))
        }
    }
}

/// The object of the node that calls: the one that carries its id, whatever its name.
pub(crate) fn own_node<'a>(caller: &Caller, snapshot: &'a Snapshot, cluster: ClusterId) -> Option<&'a Object> {
    let Caller::Node { id, .. } = caller else { return None };
    let provider = format!("quorate://{cluster}/{id}");
    let mut nodes = snapshot.list(&NODES).map(|stored| &stored.object);
    nodes.find(|node| node.text(&["spec", "providerID"]) == Some(&provider))
}

fn only_users(caller: &Caller) -> Result<(), Refusal> {
    match caller {
        Caller::User(_) => Ok(()),
        Caller::Node { .. } => Err(forbidden(caller, "nodes read and report; they change nothing by request")),
    }
}

fn only_nodes(caller: &Caller) -> Result<(), Refusal> {
    match caller {
        Caller::User(_) => Err(forbidden(caller, "only a node may say that it lives, or what it runs")),
        Caller::Node { .. } => Ok(()),
    }
}

/// A node speaks for itself and for the pods bound to it. What does not exist (any more) is no one's, and skipped later.
fn reports_its_own(caller: &Caller, fact: &Fact, snapshot: &Snapshot, cluster: ClusterId) -> Result<(), Refusal> {
    let own = own_node(caller, snapshot, cluster).map(Object::name);
    let pod = |namespace: &str, name: &str, uid: &str| {
        let bound = snapshot
            .find(&PODS, Some(namespace), name)
            .filter(|stored| stored.object.uid() == uid)
            .map(|stored| stored.object.text(&["spec", "nodeName"]));
        match bound {
            Some(node) if node.is_none() || node != own => {
                Err(forbidden(caller, format!("pod {}/{} is not bound to it", cut(namespace), cut(name))))
            }
            _ => Ok(()),
        }
    };
    match fact {
        Fact::Pod { namespace, name, uid, .. } | Fact::Gone { namespace, name, uid } => pod(namespace, name, uid),
        Fact::Node { .. } => Ok(()),
        Fact::Event { event } => {
            let Ok(event) = serde_json::from_slice::<serde_json::Value>(&event.0) else { return Ok(()) };
            let text = |field: &str| event["involvedObject"][field].as_str().unwrap_or_default();
            match text("kind") {
                "Pod" => pod(text("namespace"), text("name"), text("uid")),
                "Node" if own.is_none_or(|own| own == text("name")) => Ok(()),
                kind => {
                    let about = format!("it told of {} `{}`, which is not its own", cut(kind), cut(text("name")));
                    Err(forbidden(caller, about))
                }
            }
        }
    }
}

fn forbidden(caller: &Caller, because: impl Into<String>) -> Refusal {
    let who = match caller {
        Caller::User(name) => format!("user `{}`", cut(name)),
        Caller::Node { name: Some(name), .. } => format!("node `{}`", cut(name)),
        Caller::Node { id, name: None } => format!("node {id}"),
    };
    Refusal::new(Reason::Forbidden, format!("the request of {who} was not done"), because)
}

#[cfg(test)]
mod tests;
