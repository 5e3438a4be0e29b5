//! How connections are tuned: windows, timeouts, keep-alive, and what strangers may use.
//!
//! The accepting side starts every connection with a stranger's small limits and widens them once it knows who calls; the dialling side
//! knows beforehand. Windows are limits, not allocations. The lower idle timeout of both ends counts, so the dialling side decides it,
//! and it alone keeps the connection alive.
//!
//! Invariant: nobody gets more than a stranger's limits before the certificate was checked.

use std::{sync::Arc, time::Duration};

use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};

use crate::alpn::Alpn;

/// What lies between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkClass {
    /// A local network: a silent peer is noticed after 5 s.
    #[default]
    Lan,
    /// A wide or flaky one: after 20 s.
    Wan,
}

/// Handshakes must be done within this.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(3);
/// Hellos must be exchanged within this.
pub(crate) const HELLO: Duration = Duration::from_secs(3);
/// Unauthenticated handshakes at a time, beyond which source addresses are validated first (QUIC Retry, RFC 9000 §8.1.2).
pub(crate) const RETRY_ABOVE: usize = 64;
/// Handshakes at a time, beyond which new ones are refused.
pub(crate) const MAX_HANDSHAKES: usize = 1024;
/// Bytes buffered for connections that are not accepted yet: each, and all.
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFER_TOTAL: u64 = 8 << 20;

/// Streams a stranger may have open.
const STRANGER_STREAMS: u32 = 32;
/// Streams a joiner may have open.
const JOIN_STREAMS: u32 = 2;
/// Bytes a stranger may have in flight.
const STRANGER_WINDOW: u32 = 256 << 10;
/// How long the other side may wait with acknowledging a packet that comes alone, for something to send along with it: longer than the
/// shortest heartbeat, so that one carries the acknowledgement of the answer to the one before. A last packet that is lost is noticed
/// later by as much.
const ACKNOWLEDGE: Duration = Duration::from_millis(100);
/// The accepting side's idle timeout, if the dialling side has a longer one or none.
const ACCEPTED_IDLE: u32 = 30_000;

struct Tuning {
    idle_ms: u32,
    keep_alive: Option<Duration>,
    streams: u32,
    stream_window: u32,
    window: u32,
    send_window: u64,
}

const fn tuning(alpn: Alpn, link: LinkClass) -> Tuning {
    let wan = matches!(link, LinkClass::Wan);
    match alpn {
        Alpn::Peer => Tuning {
            idle_ms: if wan { 20_000 } else { 5_000 },
            keep_alive: Some(if wan { Duration::from_secs(5) } else { Duration::from_secs(1) }),
            streams: 1024,
            stream_window: if wan { 4 << 20 } else { 1 << 20 },
            window: if wan { 32 << 20 } else { 16 << 20 },
            send_window: if wan { 16 << 20 } else { 8 << 20 },
        },
        Alpn::Data => Tuning {
            idle_ms: 30_000,
            keep_alive: Some(Duration::from_secs(10)),
            streams: 8192,
            stream_window: if wan { 16 << 20 } else { 4 << 20 },
            window: 64 << 20,
            send_window: 32 << 20,
        },
        // A watch is to go on elsewhere soon after its node was lost.
        Alpn::Client => Tuning {
            idle_ms: if wan { 20_000 } else { 10_000 },
            keep_alive: Some(if wan { Duration::from_secs(5) } else { Duration::from_secs(3) }),
            streams: 256,
            stream_window: 1 << 20,
            window: 8 << 20,
            send_window: 8 << 20,
        },
        Alpn::Join | Alpn::Doq => Tuning {
            idle_ms: 15_000,
            keep_alive: None,
            streams: if matches!(alpn, Alpn::Join) { JOIN_STREAMS } else { STRANGER_STREAMS },
            stream_window: STRANGER_WINDOW,
            window: STRANGER_WINDOW,
            send_window: 1 << 20,
        },
    }
}

/// For connections we dial.
pub(crate) fn dialled(alpn: Alpn, link: LinkClass, segmentation_offload: bool) -> Arc<TransportConfig> {
    let tuning = tuning(alpn, link);
    let mut config = common(segmentation_offload);
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(tuning.idle_ms))));
    config.keep_alive_interval(tuning.keep_alive);
    config.max_concurrent_bidi_streams(VarInt::from_u32(tuning.streams));
    config.stream_receive_window(VarInt::from_u32(tuning.stream_window));
    config.receive_window(VarInt::from_u32(tuning.window));
    config.send_window(tuning.send_window);
    if matches!(link, LinkClass::Lan) {
        config.initial_rtt(Duration::from_millis(100));
    }
    Arc::new(config)
}

/// For connections we accept, until it is known who calls.
pub(crate) fn accepted(link: LinkClass, segmentation_offload: bool) -> Arc<TransportConfig> {
    let mut config = common(segmentation_offload);
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(ACCEPTED_IDLE))));
    config.max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS));
    // The window of a stream cannot change later: the connection's, which holds for all of them, is what strangers meet.
    config.stream_receive_window(VarInt::from_u32(tuning(Alpn::Data, link).stream_window));
    config.receive_window(VarInt::from_u32(STRANGER_WINDOW));
    config.send_window(tuning(Alpn::Client, link).send_window);
    Arc::new(config)
}

/// Gives an accepted connection what its purpose allows, now that it is known who calls.
pub(crate) fn widen(connection: &quinn::Connection, alpn: Alpn, link: LinkClass) {
    let tuning = tuning(alpn, link);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(tuning.streams));
    connection.set_receive_window(VarInt::from_u32(tuning.window));
    connection.set_send_window(tuning.send_window);
}

/// Limits on those who knock.
pub(crate) fn limit_strangers(config: &mut quinn::ServerConfig) {
    config.max_incoming(MAX_HANDSHAKES);
    config.incoming_buffer_size(INCOMING_BUFFER);
    config.incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
}

fn common(segmentation_offload: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    // quinn's default congestion control is Cubic, which is what we want; its BBR is not maintained.
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.datagram_receive_buffer_size(None);
    let mut acknowledging = AckFrequencyConfig::default();
    acknowledging.max_ack_delay(Some(ACKNOWLEDGE));
    config.ack_frequency_config(Some(acknowledging));
    config.enable_segmentation_offload(segmentation_offload);
    config
}
