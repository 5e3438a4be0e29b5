use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use quorate_mesh::{
    Client, ClusterAuthority, Config, Handler, Handlers, Identity, LinkClass, Mesh, Stream, UserIdentity,
};
use serde_json::json;
use tokio::sync::SetOnce;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    mesh_links::Reception,
    testing::{Alone, CLUSTER, namespace, until, watch, within},
    world::{SystemClock, SystemRandom},
};

/// Counts the streams that are being served.
struct Counting {
    inner: Reception,
    open: Arc<AtomicUsize>,
}

#[async_trait]
impl Handler for Counting {
    async fn stream(&self, caller: quorate_mesh::Caller, stream: Stream) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.inner.stream(caller, stream).await;
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A client's stream that watches, and has its first answer. As the command line does, it says at once that it will ask nothing more.
async fn watching(client: &Client) -> Stream {
    let mut stream = client.open().await.unwrap();
    stream.write_frame(&watch(), cap::API).await.unwrap();
    stream.finish().unwrap();
    next(&mut stream).await;
    stream
}

async fn next(stream: &mut Stream) -> Answer {
    within(stream.read_frame(cap::API)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_client_of_the_port_that_goes_away_ends_its_quiet_watch_at_once_and_nobody_elses() {
    let alone = Alone::start().await;
    let services = Arc::new(SetOnce::new());
    services.set(alone.node.services.clone()).unwrap_or_default();
    let open = Arc::new(AtomicUsize::new(0));
    let handler = || Arc::new(Counting { inner: Reception::new(Arc::clone(&services)), open: Arc::clone(&open) });
    let (clock, random) = (Arc::new(SystemClock::start()), Arc::new(SystemRandom));
    let authority = ClusterAuthority::generate(CLUSTER, clock.wall(), &*random).unwrap();
    let identity = Identity::issue(&authority, NodeId(1), clock.wall(), &*random).unwrap();
    let user = UserIdentity::issue(&authority, "ada", clock.wall(), &*random).unwrap();
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        addresses: Vec::new(),
        identity,
        incarnation: 1,
        epoch: quorate_proto::hello::Epoch::default(),
        build: "test".to_owned(),
        link: LinkClass::Lan,
        segmentation_offload: true,
    };
    let handlers = Handlers { peer: handler(), data: handler(), client: handler(), doq: None, admission: None };
    let (members, tasks, shutdown) = (Arc::new(|_: NodeId| true), TaskTracker::new(), alone.shutdown.clone());
    let mesh = Mesh::start(config, handlers, members, Arc::clone(&clock) as _, random, tasks, shutdown).unwrap();
    let endpoints = [mesh.local_address().to_string()];
    let connect = async || within(Client::connect(&endpoints, &user, Arc::clone(&clock) as _)).await.unwrap();

    let (client, other) = (connect().await, connect().await);
    let mut stays = watching(&client).await;
    let mut come_and_go = Vec::new();
    for _ in 0..20 {
        come_and_go.push(watching(&client).await);
        come_and_go.push(watching(&other).await);
    }
    assert_eq!(open.load(Ordering::SeqCst), 41);
    // Some let go of their streams, the others close their connection.
    other.close().await;
    drop(come_and_go);
    until(|| open.load(Ordering::SeqCst) == 1).await;

    alone.put(namespace("shop")).await;
    assert!(matches!(next(&mut stays).await, Answer::Table(table) if table.rows.len() == 1));
    drop(stays);
    until(|| open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_node_that_speaks_is_heard_before_it_is_answered() {
    let alone = Alone::start().await;
    let id = NodeId(2);
    let spec = json!({"providerID": format!("quorate://{CLUSTER}/{id}")});
    alone.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2", "uid": "2"}, "spec": spec})).await;
    let services = alone.node.services.clone();
    assert!(!services.heard.last().contains_key("n2"));
    let (near, far) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(far);
    let (_keep, mut near) = tokio::io::split(near);
    let serving = services.node(id, Lane::Peer, Box::new(writer), Box::new(reader));
    let speaks = async {
        links::send(&mut near, &Opening::RaftCall, cap::CONTROL).await.unwrap();
        until(|| services.heard.last().contains_key("n2")).await;
    };
    tokio::select! {
        () = speaks => {}
        served = serving => panic!("it asked nothing yet: {served:?}"),
    }
}
