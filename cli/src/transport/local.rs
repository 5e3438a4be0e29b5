//! The node on this machine, asked through its socket: needs no context, but root.
//!
//! Invariant: one connection carries one request.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use quorate_mesh::frame;
use quorate_proto::{
    refusal::{Reason, Refusal},
    request::{Answer, Request},
    wire::cap,
};
use tokio::{net::UnixStream, sync::Mutex};

use super::{Connection, Endpoint, WHAT, lost};
use crate::client::Answers;

/// Where the daemon of this machine listens, if nothing else is said.
pub(crate) const SOCKET: &str = "/run/quorate/api.sock";

/// What the name of a socket begins with.
pub(crate) const SCHEME: &str = "unix://";

/// The path in `unix:///path`.
pub(crate) fn path(url: &str) -> Option<&Path> {
    url.strip_prefix(SCHEME).map(Path::new).filter(|path| path.is_absolute())
}

/// A daemon's socket.
pub(crate) struct Socket {
    name: String,
    path: PathBuf,
}

impl Socket {
    /// Reads `unix:///path`.
    ///
    /// # Errors
    /// If it is something else.
    pub(crate) fn parse(url: &str) -> Result<Self, Refusal> {
        match path(url) {
            Some(path) => Ok(Self { name: url.to_owned(), path: path.to_owned() }),
            None => Err(Refusal::new(Reason::BadRequest, WHAT, format!("`{url}` is no socket of a node"))
                .hint(format!("write --endpoint {SCHEME}{SOCKET}"))),
        }
    }

    fn refusal(&self, error: &io::Error) -> Refusal {
        let (reason, hint) = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                (Reason::Forbidden, "only root may ask the node like this: sudo quorate ...; others need a context")
            }
            _ => (Reason::Unavailable, "is the daemon running on this machine? `quorate up` starts it"),
        };
        Refusal::new(reason, WHAT, format!("{}: {error}", self.name)).hint(hint)
    }
}

#[async_trait]
impl Endpoint for Socket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, Refusal> {
        match UnixStream::connect(&self.path).await {
            Ok(stream) => Ok(Arc::new(Connected(Mutex::new(Some(stream))))),
            Err(error) => Err(self.refusal(&error)),
        }
    }
}

/// A connection that has not carried its request yet.
struct Connected(Mutex<Option<UnixStream>>);

#[async_trait]
impl Connection for Connected {
    async fn ask(&self, request: &Request) -> Result<Answers, Refusal> {
        let spent =
            || lost(&io::Error::new(io::ErrorKind::NotConnected, "the connection has carried a request already"));
        let mut stream = self.0.lock().await.take().ok_or_else(spent)?;
        frame::write(&mut stream, request, cap::API).await.map_err(|error| lost(&error))?;
        let answers = stream::unfold(Some(stream), |state| async {
            let mut stream = state?;
            match frame::read::<Answer>(&mut stream, cap::API).await {
                Ok(Some(answer)) => Some((Ok(answer), Some(stream))),
                Ok(None) => None,
                Err(error) => Some((Err(lost(&error)), None)),
            }
        });
        Ok(answers.boxed())
    }

    fn is_open(&self) -> bool {
        false
    }
}
