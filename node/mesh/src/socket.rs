//! The UDP socket: bound with large buffers, and with errors that say what to do.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::PortError;

/// Asked for; Linux grants at most `net.core.rmem_max` and `wmem_max`.
const BUFFER: usize = 7 << 20;
/// Below this, bulk loses packets in the socket (measured).
const ENOUGH: usize = 1 << 20;

/// Binds a UDP socket. The IPv6 wildcard serves IPv4 too.
pub(crate) fn bind(listen: SocketAddr) -> Result<UdpSocket, PortError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => PortError::InUse { listen, source },
        io::ErrorKind::PermissionDenied => PortError::Permission { listen, source },
        io::ErrorKind::AddrNotAvailable => PortError::NotOurs { listen, source },
        _ => PortError::Bind { listen, source },
    };
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    if listen.is_ipv6() {
        socket.set_only_v6(!listen.ip().is_unspecified()).map_err(failed)?;
    }
    socket.bind(&listen.into()).map_err(failed)?;
    enlarge(&socket);
    Ok(socket.into())
}

/// Small buffers cost speed, not correctness: they are told of, not refused.
fn enlarge(socket: &Socket) {
    let set = socket.set_recv_buffer_size(BUFFER).and_then(|()| socket.set_send_buffer_size(BUFFER));
    let granted = socket.recv_buffer_size().and_then(|receive| Ok(receive.min(socket.send_buffer_size()?)));
    match (set, granted) {
        (Ok(()), Ok(granted)) if granted >= ENOUGH => {}
        (_, granted) => tracing::info!(
            granted = granted.unwrap_or_default(),
            wanted = BUFFER,
            "small UDP socket buffers: raise the sysctls net.core.rmem_max and net.core.wmem_max for full speed"
        ),
    }
}
