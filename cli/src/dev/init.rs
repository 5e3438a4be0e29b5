//! The first process of a host: gives it a name and a `/run` of its own, then collects the processes that end.
//!
//! It runs alone in new process, mount and name namespaces, inside the host's network namespace. Everything of the host is its
//! descendant or enters these namespaces, so when it is killed, the kernel ends all of it and undoes every mount: a power cut.
//!
//! Invariant: it never ends by itself.

use std::{fs, io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::sethostname,
};
use quorate_proto::refusal::{Reason, Refusal};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::DevInit;

pub(crate) fn run(arguments: &DevInit) -> Result<(), Refusal> {
    let failed = |because: io::Error| {
        Refusal::new(Reason::Internal, format!("{} was not switched on", arguments.host), because.to_string())
            .hint("this is the first process of a host; `quorate dev up` starts it")
    };
    if std::process::id() != 1 {
        return Err(failed(io::Error::other("it is not the first process of a process namespace")));
    }
    prepare(&arguments.host).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(reap()).map_err(failed)
}

fn prepare(host: &str) -> io::Result<()> {
    sethostname(host)?;
    // Where systemd-resolved or NetworkManager run, this is a link into /run.
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    let resolver = resolver.and_then(|path| fs::read(&path).ok().map(|text| (path, text)));
    // Docker, containerd and our daemon keep sockets and locks in /run, all under the same names on every host.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))?;
    fs::create_dir("/run/lock")?;
    if let Some((path, text)) = resolver.filter(|(path, _)| path.starts_with("/run")) {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/run")))?;
        fs::write(path, text)?;
    }
    Ok(())
}

async fn reap() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        ended.recv().await;
    }
}
