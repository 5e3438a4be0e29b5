//! A runtime that does what it is asked and does not answer, as an engine under too much load: for tests.
//!
//! Invariant: a call that got no answer within its deadline says so; whether it was done is not known to whoever asked.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::{
    Container, ContainerSpec, Credentials, HolderSpec, Info, LogLines, PodRef, Runtime, RuntimeError, Volume,
    simulated::Simulated,
};
use crate::probe::Check;

/// How long whoever asks waits for an answer, as for a real engine's look-ups.
const DEADLINE: Duration = Duration::from_secs(15);

/// A simulated runtime whose answers may be held back.
pub(crate) struct Hanging {
    inner: Arc<Simulated>,
    hangs: watch::Sender<bool>,
}

impl Hanging {
    pub(crate) fn new(inner: Arc<Simulated>) -> Self {
        Self { inner, hangs: watch::Sender::new(false) }
    }

    /// Holds answers back, or lets them go.
    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Gives an answer, once it may be given.
    async fn answer<T>(&self, what: &str, answer: Result<T, RuntimeError>) -> Result<T, RuntimeError> {
        let mut hangs = self.hangs.subscribe();
        match tokio::time::timeout(DEADLINE, hangs.wait_for(|hangs| !hangs)).await {
            Ok(_) => answer,
            Err(_) => Err(RuntimeError::Timeout { what: what.to_owned(), seconds: DEADLINE.as_secs() }),
        }
    }
}

#[async_trait]
impl Runtime for Hanging {
    async fn info(&self) -> Result<Info, RuntimeError> {
        self.answer("asking for its state", self.inner.info().await).await
    }

    async fn prepare(&self) -> Result<(), RuntimeError> {
        self.answer("preparing", self.inner.prepare().await).await
    }

    async fn list(&self) -> Result<Vec<Container>, RuntimeError> {
        self.answer("listing containers", self.inner.list().await).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<(), RuntimeError>>, RuntimeError> {
        self.answer("asking for events", self.inner.events().await).await
    }

    async fn image(&self, reference: &str) -> Result<Option<String>, RuntimeError> {
        self.answer("looking for an image", self.inner.image(reference).await).await
    }

    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<String, RuntimeError> {
        self.answer("fetching an image", self.inner.pull(reference, credentials).await).await
    }

    async fn mount(&self, pod: &PodRef, volumes: &[Volume]) -> Result<BTreeMap<String, String>, RuntimeError> {
        self.inner.mount(pod, volumes).await
    }

    async fn unmount(&self, uid: &str) -> Result<(), RuntimeError> {
        self.inner.unmount(uid).await
    }

    async fn mounted(&self) -> Result<Vec<String>, RuntimeError> {
        self.inner.mounted().await
    }

    async fn start_holder(&self, holder: &HolderSpec) -> Result<(), RuntimeError> {
        self.answer("starting a holder", self.inner.start_holder(holder).await).await
    }

    async fn create(&self, container: &ContainerSpec) -> Result<String, RuntimeError> {
        self.answer("making a container", self.inner.create(container).await).await
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.answer("starting a container", self.inner.start(id).await).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.answer("stopping a container", self.inner.stop(id, grace).await).await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.answer("removing a container", self.inner.remove(id).await).await
    }

    async fn check(
        &self,
        id: &str,
        address: Ipv4Addr,
        check: &Check,
        timeout: Duration,
    ) -> Result<Result<(), String>, RuntimeError> {
        self.answer("checking a container", self.inner.check(id, address, check, timeout).await).await
    }

    async fn logs(
        &self,
        id: &str,
        lines: &LogLines,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        self.answer("reading a log", self.inner.logs(id, lines).await).await
    }
}
