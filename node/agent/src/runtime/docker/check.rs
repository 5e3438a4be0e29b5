//! Asks a container how it is: over HTTP, over TCP, by a command in it.
//!
//! Invariant: an answer comes within the timeout, and no more than a little of what the container says is kept.

use std::{net::Ipv4Addr, time::Duration};

use bollard::{
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::Empty;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Docker, LOOK_UP};
use crate::{probe::Check, runtime::RuntimeError};

/// The most bytes of a command's output that are kept for people, as in the kubelet.
const MAX_OUTPUT: usize = 10 << 10;

/// Asks over the network.
pub(super) async fn ask(address: Ipv4Addr, check: &Check, timeout: Duration) -> Result<(), String> {
    let asked = async {
        match check {
            Check::Http { host, port, path, headers, any_status } => {
                let status = http(host.as_deref(), address, *port, path, headers).await?;
                match status {
                    200..=399 => Ok(()),
                    _ if *any_status => Ok(()),
                    status => Err(format!("HTTP probe failed with statuscode: {status}")),
                }
            }
            Check::Tcp { host, port } => connect(host.as_deref(), address, *port).await.map(drop),
            Check::Unsupported(why) => Err(why.clone()),
            Check::Exec { .. } => Err("a command runs in the container, not over the network".to_owned()),
        }
    };
    tokio::time::timeout(timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs())))
}

async fn connect(host: Option<&str>, address: Ipv4Addr, port: u16) -> Result<TcpStream, String> {
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    TcpStream::connect((host.as_str(), port)).await.map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

async fn http(
    host: Option<&str>,
    address: Ipv4Addr,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, String> {
    let url = format!("http://{}:{port}{path}", host.map_or_else(|| address.to_string(), str::to_owned));
    let failed = |error: &dyn std::fmt::Display| format!("Get {url:?}: {error}");
    let stream = connect(host, address, port).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let own_host = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.clone());
    let mut request = Request::get(path)
        .header(header::HOST, own_host.unwrap_or_else(|| format!("{address}:{port}")))
        .header(header::USER_AGENT, concat!("quorate-probe/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // The connection may end in the very moment it brought the answer.
        _ = &mut connection => answer.await,
    };
    answer.map(|answer| answer.status().as_u16()).map_err(|error| failed(&error))
}

impl Docker {
    /// Runs a command in a container.
    pub(super) async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<Result<(), String>, RuntimeError> {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..ExecConfig::default()
        };
        let exec = self
            .call("preparing a command", LOOK_UP, async |client| client.create_exec(id, config.clone()).await)
            .await?;
        let started = self
            .call("starting a command", LOOK_UP, async |client| {
                client.start_exec(&exec.id, None::<StartExecOptions>).await
            })
            .await?;
        let mut written = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            let read = async {
                while let Some(Ok(part)) = output.next().await {
                    let part = part.into_bytes();
                    let room = MAX_OUTPUT.saturating_sub(written.len());
                    written.extend_from_slice(&part[..part.len().min(room)]);
                }
            };
            if tokio::time::timeout(timeout, read).await.is_err() {
                return Ok(Err(format!("command timed out after {} s", timeout.as_secs())));
            }
        }
        let ended =
            self.call("asking after a command", LOOK_UP, async |client| client.inspect_exec(&exec.id).await).await?;
        Ok(match ended.exit_code {
            Some(0) => Ok(()),
            Some(code) => Err(format!("exit code {code}: {}", String::from_utf8_lossy(&written).trim_end())),
            None => Err("the command did not end".to_owned()),
        })
    }
}
