use quorate_proto::{request::Answer, wire::cap};
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::{
    links,
    testing::{Alone, namespace, until, watch, within},
};

/// A client that watches, and has its first answer.
async fn watching(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).await.unwrap();
    links::send(&mut stream, &watch(), cap::API).await.unwrap();
    next(&mut stream).await;
    stream
}

async fn next(stream: &mut UnixStream) -> Answer {
    within(links::receive::<Answer>(stream, cap::API)).await.unwrap()
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_quiet_watch_at_once_and_nobody_elses() {
    let alone = Alone::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let (connections, server) = (TaskTracker::new(), TaskTracker::new());
    let listener = bind(&path).unwrap();
    server.spawn(serve(listener, alone.node.services.clone(), connections.clone(), alone.shutdown.clone()));

    // One that stays, and one that stays and says that it will ask nothing more.
    let mut stays = [watching(&path).await, watching(&path).await];
    stays[1].shutdown().await.unwrap();
    let mut come_and_go = Vec::new();
    for _ in 0..50 {
        come_and_go.push(watching(&path).await);
    }
    assert_eq!(connections.len(), 52);
    drop(come_and_go);
    until(|| connections.len() == 2).await;

    alone.put(namespace("shop")).await;
    for stream in &mut stays {
        assert!(matches!(next(stream).await, Answer::Table(table) if table.rows.len() == 1));
    }
    drop(stays);
    until(|| connections.is_empty()).await;
}
