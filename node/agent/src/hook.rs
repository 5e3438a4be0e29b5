//! What a container wants done when it was started, and before it is stopped (pure).
//!
//! Source: kubernetes `pkg/kubelet/lifecycle/handlers.go`. A hook is done at least once: whoever starts again in the middle of one does not
//! know how far it came.
//!
//! Invariant: a container whose first hook is not done is taken for one that has not begun: it is not probed, and gets no traffic.

use std::{net::Ipv4Addr, time::Duration};

use quorate_proto::k8s::api::core::v1::{Container, LifecycleHandler};

use crate::probe::{self, Check};

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Asks the container something; what it answers over HTTP makes no difference.
    Ask(Check),
    /// Lets time pass.
    Sleep(Duration),
}

/// A hook, and the address of the pod it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) hook: Hook,
    pub(crate) address: Ipv4Addr,
}

/// What is done as soon as a container was started.
pub(crate) fn post_start(container: &Container) -> Option<Hook> {
    Some(hook(container, container.lifecycle.as_ref()?.post_start.as_ref()?))
}

/// What is done before a container that runs is told to stop, within its grace.
pub(crate) fn pre_stop(container: &Container) -> Option<Hook> {
    Some(hook(container, container.lifecycle.as_ref()?.pre_stop.as_ref()?))
}

fn hook(container: &Container, handler: &LifecycleHandler) -> Hook {
    if let Some(sleep) = &handler.sleep {
        return Hook::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)));
    }
    if let Some(exec) = &handler.exec {
        return Hook::Ask(Check::Exec { command: exec.command.clone().unwrap_or_default() });
    }
    Hook::Ask(match &handler.http_get {
        Some(http) => probe::http(container, http, true),
        None => Check::Unsupported("only exec, httpGet and sleep are supported as hooks".to_owned()),
    })
}
