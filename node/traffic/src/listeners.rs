//! Keeps exactly those listeners open that the table asks for.
//!
//! Invariant: a listener that cannot be opened is reported with its reason, and tried again when the table changes, and now and then.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use quorate_proto::endpoints::Protocol;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{datagrams, dial::Dialler, service, table::Listen, traffic::Health};

/// When to try again what could not be listened on though nothing changed here: the address or port may have become free.
const RETRY: Duration = Duration::from_secs(1);
/// Connections the kernel holds while they wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listener: closed when its guard is dropped, gone when its task has ended.
struct Open {
    guard: DropGuard,
    task: JoinHandle<()>,
}

/// Keeps listeners open until the token stops it.
pub(crate) async fn keep(
    dialler: Arc<Dialler>,
    health: watch::Sender<Health>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut table = dialler.table.clone();
    let mut open: BTreeMap<Listen, Open> = BTreeMap::new();
    loop {
        let wanted = Arc::clone(&table.borrow_and_update());
        let gone: Vec<Listen> = open.keys().filter(|listen| !wanted.ports.contains_key(listen)).copied().collect();
        for listen in gone {
            if let Some(Open { guard, task }) = open.remove(&listen) {
                drop(guard);
                // Waited for, so that an address that comes back finds its port free. A task that panicked is gone as well.
                let _ended = task.await;
            }
        }
        let mut unbound = wanted.refused.clone();
        for listen in wanted.ports.keys().filter(|listen| !open.contains_key(listen)).copied().collect::<Vec<_>>() {
            match start(&dialler, listen, &tasks, &shutdown) {
                Ok(listener) => drop(open.insert(listen, listener)),
                Err(error) => drop(unbound.insert(listen, error.to_string())),
            }
        }
        let retry = unbound.len() > wanted.refused.len();
        let newest = Health { listening: open.len(), unbound };
        health.send_if_modified(|health| {
            let changed = *health != newest;
            if changed && !newest.unbound.is_empty() {
                tracing::warn!(unbound = ?newest.unbound, "some service ports cannot be listened on");
            }
            *health = newest;
            changed
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = table.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if retry => {}
        }
    }
}

fn start(
    dialler: &Arc<Dialler>,
    listen: Listen,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> io::Result<Open> {
    let stop = shutdown.child_token();
    let (dialler, guard) = (Arc::clone(dialler), stop.clone().drop_guard());
    let task = match listen.protocol {
        Protocol::Tcp => {
            let listener = TcpListener::from_std(bind(listen, Type::STREAM)?.into())?;
            tasks.spawn(service::serve(dialler, listen, listener, tasks.clone(), stop, shutdown.clone()))
        }
        Protocol::Udp => {
            let socket = UdpSocket::from_std(bind(listen, Type::DGRAM)?.into())?;
            tasks.spawn(datagrams::serve(dialler, listen, socket, tasks.clone(), stop))
        }
    };
    Ok(Open { guard, task })
}

fn bind(listen: Listen, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(SocketAddr::V4(listen.address)))?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
