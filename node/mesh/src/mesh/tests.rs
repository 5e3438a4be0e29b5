//! Nodes that find each other, and find each other again, over real UDP.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_proto::{
    hello::{Hello, Introduction},
    wire::cap,
};

use super::*;
use crate::testing::{Node, Start, ask, authority, identity, until, within};

fn pair() -> (Node, Node) {
    let ca = authority(1);
    (Start::new(identity(&ca, 1)).run(), Start::new(identity(&ca, 2)).run())
}

/// Opens a stream, trying again as a caller would, and asks for an answer.
async fn reach(from: &Node, to: NodeId, alpn: Alpn) -> String {
    within(async {
        loop {
            if let Ok(mut stream) = from.mesh.open(to, alpn).await
                && let Ok(answer) = ask(&mut stream, "hi").await
            {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Which connection a node uses to another: its dial number, and who dialled.
fn link(node: &Node, to: NodeId) -> Option<(u64, NodeId)> {
    let link = node.mesh.0.table().slots.get(&(to, Alpn::Peer)).and_then(Slot::link)?;
    Some((link.rank.dial, link.rank.dialler.0))
}

fn is_up(node: NodeId) -> impl Fn(&Peers) -> bool {
    move |peers| peers.get(&node).is_some_and(|peer| peer.is_up)
}

#[tokio::test]
async fn two_nodes_introduce_themselves_and_either_opens_streams() {
    let (n1, n2) = pair();
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    let answer = reach(&n1, n2.id(), Alpn::Peer).await;
    assert_eq!(answer, format!("peer heard hi from node/{} for quorate-peer/1", n1.id()));
    until(&n2.mesh, is_up(n1.id())).await;
    let seen = n2.mesh.peers().borrow()[&n1.id()].clone();
    assert_eq!((seen.incarnation, seen.build.as_str(), seen.sees_us_at), (1, "test", Some(n2.address())));
    // Nobody told the second node where the first is: the connection there is serves both.
    let answer = reach(&n2, n1.id(), Alpn::Peer).await;
    assert_eq!(answer, format!("peer heard hi from node/{} for quorate-peer/1", n2.id()));
    assert_eq!((link(&n1, n2.id()), link(&n2, n1.id())), (Some((1, n1.id())), Some((1, n1.id()))));
    let answer = reach(&n1, n2.id(), Alpn::Data).await;
    assert_eq!(answer, format!("data heard hi from node/{} for quorate-data/1", n1.id()));
}

#[tokio::test]
async fn dials_that_cross_settle_on_one_connection() {
    let (n1, n2) = pair();
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    let (there, back) = tokio::join!(reach(&n1, n2.id(), Alpn::Peer), reach(&n2, n1.id(), Alpn::Peer));
    assert!(there.starts_with("peer heard") && back.starts_with("peer heard"));
    let settled = async {
        loop {
            if let (Some(one), Some(other)) = (link(&n1, n2.id()), link(&n2, n1.id()))
                && one == other
            {
                return one;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (_, dialler) = within(settled).await;
    assert!(dialler == n1.id() || dialler == n2.id());
    let (there, back) = tokio::join!(reach(&n1, n2.id(), Alpn::Peer), reach(&n2, n1.id(), Alpn::Peer));
    assert!(there.starts_with("peer heard") && back.starts_with("peer heard"));
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older_but_lets_its_streams_end() {
    let (n1, n2) = pair();
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    let mut old = within(n1.mesh.open(n2.id(), Alpn::Peer)).await.unwrap();
    within(ask(&mut old, "hi")).await.unwrap();
    until(&n2.mesh, is_up(n1.id())).await;
    // The second node dials anew, as after a change of its addresses.
    n2.mesh.set_addresses(vec![n2.address()]);
    within(async {
        while link(&n1, n2.id()) != Some((2, n2.id())) || link(&n2, n1.id()) != Some((2, n2.id())) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(within(ask(&mut old, "still there?")).await.unwrap().starts_with("peer heard still there?"));
    assert!(reach(&n1, n2.id(), Alpn::Peer).await.starts_with("peer heard"));
}

#[tokio::test]
async fn a_peer_that_comes_back_elsewhere_is_found_by_its_id() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let n2 = Start::new(identity(&ca, 2)).run();
    let id = n2.id();
    n1.mesh.introduce(id, vec![n2.address()]);
    reach(&n1, id, Alpn::Peer).await;
    n2.stop().await;
    until(&n1.mesh, |peers| !peers[&id].is_up).await;
    let mut again = Start::new(identity(&ca, 2));
    again.incarnation = 2;
    let n2 = again.run();
    // It knows where the first node is, and calls; the first does not know its new address, and needs not to.
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    reach(&n2, n1.id(), Alpn::Peer).await;
    until(&n1.mesh, |peers| peers[&id].is_up && peers[&id].incarnation == 2).await;
    assert!(reach(&n1, id, Alpn::Peer).await.starts_with("peer heard"));
    assert_eq!(n1.mesh.peers().borrow()[&id].addresses.first(), Some(&n2.address()));
}

#[tokio::test]
async fn a_restarted_peer_replaces_its_ghost_at_once() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let ghost = Start::new(identity(&ca, 2)).run();
    n1.mesh.introduce(ghost.id(), vec![ghost.address()]);
    reach(&n1, ghost.id(), Alpn::Peer).await;
    reach(&n1, ghost.id(), Alpn::Data).await;
    let mut streams = Vec::new();
    for alpn in [Alpn::Peer, Alpn::Data] {
        streams.push(within(n1.mesh.open(ghost.id(), alpn)).await.unwrap());
    }
    // The ghost is never stopped: to the first node its connections are alive.
    let mut again = Start::new(identity(&ca, 2));
    again.incarnation = 2;
    let n2 = again.run();
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    within(n2.mesh.open(n1.id(), Alpn::Peer)).await.unwrap();
    until(&n1.mesh, |peers| peers[&n2.id()].incarnation == 2).await;
    within(async {
        while link(&n1, n2.id()) != Some((1, n2.id())) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for mut stream in streams {
        assert!(within(ask(&mut stream, "are you there?")).await.is_err(), "whoever waits for a ghost waits in vain");
    }
}

#[tokio::test]
async fn when_the_dialling_side_moves_its_connection_and_streams_follow() {
    let (n1, n2) = pair();
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    let mut stream = within(n2.mesh.open(n1.id(), Alpn::Peer)).await.unwrap();
    within(ask(&mut stream, "before")).await.unwrap();
    let before = n2.address();
    n2.mesh.rebind(([127, 0, 0, 1], 0).into()).unwrap();
    assert_ne!(n2.address(), before);
    assert!(within(ask(&mut stream, "after")).await.unwrap().starts_with("peer heard after"));
    assert_eq!(link(&n1, n2.id()), Some((1, n2.id())), "it is the same connection");
    assert!(reach(&n1, n2.id(), Alpn::Peer).await.starts_with("peer heard"));
}

#[tokio::test]
async fn when_the_accepting_side_moves_it_dials_back_at_once() {
    let (n1, n2) = pair();
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    reach(&n1, n2.id(), Alpn::Peer).await;
    until(&n2.mesh, is_up(n1.id())).await;
    n2.mesh.rebind(([127, 0, 0, 1], 0).into()).unwrap();
    let new = n2.address();
    until(&n1.mesh, |peers| peers[&n2.id()].addresses.first() == Some(&new)).await;
    assert!(reach(&n1, n2.id(), Alpn::Peer).await.starts_with("peer heard"));
    assert_eq!(link(&n1, n2.id()), Some((2, n2.id())));
}

#[tokio::test]
async fn a_peer_is_looked_for_at_its_new_address_as_soon_as_that_is_told() {
    let (n1, n2) = pair();
    let error = within(n1.mesh.open(n2.id(), Alpn::Peer)).await.unwrap_err();
    assert_eq!(error, MeshError::NoAddress(n2.id()));
    // Someone else lives at the old address: it is told by its certificate that it is not who was meant.
    let other = Start::new(identity(&authority(1), 3)).run();
    n1.mesh.introduce(n2.id(), vec![other.address()]);
    let error = within(n1.mesh.open(n2.id(), Alpn::Peer)).await.unwrap_err();
    assert!(matches!(&error, MeshError::Unreachable { tried, .. } if tried[0].address == other.address().to_string()));
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    let mut stream = within(n1.mesh.open(n2.id(), Alpn::Peer)).await.unwrap();
    assert!(within(ask(&mut stream, "hi")).await.unwrap().starts_with("peer heard"));
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_stays_out() {
    let ca = authority(1);
    let removed = Arc::new(AtomicBool::new(false));
    let mut start = Start::new(identity(&ca, 1));
    let members = Arc::clone(&removed);
    start.members = Arc::new(move |node| node != NodeId(2) || !members.load(Ordering::SeqCst));
    let n1 = start.run();
    let n2 = Start::new(identity(&ca, 2)).run();
    n2.mesh.introduce(n1.id(), vec![n1.address()]);
    let mut stream = within(n2.mesh.open(n1.id(), Alpn::Peer)).await.unwrap();
    within(ask(&mut stream, "hi")).await.unwrap();
    let mut refused_by = n2.mesh.refused_by();
    assert!(refused_by.borrow_and_update().is_empty());
    removed.store(true, Ordering::SeqCst);
    n1.mesh.forget(n2.id());
    assert!(within(ask(&mut stream, "hi")).await.is_err(), "its streams are cut");
    assert_eq!(within(n1.mesh.open(n2.id(), Alpn::Peer)).await.unwrap_err(), MeshError::NotMember(n2.id()));
    let error = within(async {
        loop {
            match n2.mesh.open(n1.id(), Alpn::Peer).await {
                Err(error @ MeshError::Unreachable { .. }) => return error,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    assert!(error.to_string().contains("is not a member of this cluster, or not any more"), "{error}");
    assert!(n1.mesh.peers().borrow().get(&n2.id()).is_none());
    assert!(refused_by.borrow_and_update().contains(&n1.id()), "it knows that it was removed");
    removed.store(false, Ordering::SeqCst);
    within(async {
        while n2.mesh.open(n1.id(), Alpn::Peer).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(within(refused_by.wait_for(|by| by.is_empty())).await.is_ok(), "and when it is a member again");
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_leaves_nothing_running() {
    let (n1, n2) = pair();
    let id = n2.id();
    n1.mesh.introduce(id, vec![n2.address()]);
    let mut stream = within(n1.mesh.open(id, Alpn::Peer)).await.unwrap();
    within(ask(&mut stream, "hi")).await.unwrap();
    n2.stop().await;
    assert!(within(ask(&mut stream, "hi")).await.is_err());
    until(&n1.mesh, |peers| !peers[&id].is_up).await;
    n1.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let ca = authority(1);
    let (n1, n2) = (Start::new(identity(&ca, 1)).run(), Start::new(identity(&ca, 2)).run());
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    let renewed = identity(&ca, 2);
    n2.mesh.replace_identity(renewed.clone()).unwrap();
    reach(&n1, n2.id(), Alpn::Peer).await;
    let link = n1.mesh.0.table().slots[&(n2.id(), Alpn::Peer)].link().unwrap();
    let shown = link.connection.peer_identity().unwrap();
    let shown = shown.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>().unwrap();
    assert_eq!(shown[0].as_ref(), renewed.credentials.leaf.as_ref());
}

#[tokio::test]
async fn purposes_that_are_not_between_nodes_are_refused() {
    let (n1, n2) = pair();
    for alpn in [Alpn::Client, Alpn::Join, Alpn::Doq] {
        assert_eq!(n1.mesh.open(n2.id(), alpn).await.unwrap_err(), MeshError::Purpose(alpn));
    }
    assert_eq!(n1.mesh.open(n1.id(), Alpn::Peer).await.unwrap_err(), MeshError::NotMember(n1.id()));
}

#[tokio::test]
async fn a_hello_that_claims_to_be_another_ends_the_connection() {
    let (n1, n2) = pair();
    let honest = n2.mesh.0.introduction(1, n1.address());
    let (cluster, node) = (ClusterId::from(9), NodeId::from(9));
    for forged in [Introduction { node, ..honest.clone() }, Introduction { cluster, ..honest.clone() }] {
        let connection = within(n2.mesh.0.port.dial(n1.id(), Alpn::Peer, n1.address())).await.unwrap();
        let streams = connection.open_bi().await.unwrap();
        let mut stream = Stream::new(&connection, TaskTracker::new().token(), streams);
        stream.write_frame(&Hello::V1(forged), cap::CONTROL).await.unwrap();
        assert!(within(stream.read_frame::<Hello>(cap::CONTROL)).await.is_err());
        assert!(Close::Protocol.is(&within(connection.closed()).await));
    }
    assert_eq!(link(&n1, n2.id()), None, "nothing was kept");
}

#[tokio::test]
async fn nodes_of_different_epochs_do_not_speak_and_the_older_is_told_to_join_again() {
    let ca = authority(1);
    let start = |node: u64, number: u64, members: bool| Start {
        epoch: Epoch { number, survivor: NodeId::from(u64::from(number > 0)) },
        members: Arc::new(move |_| members),
        ..Start::new(identity(&ca, node))
    };
    let why = async |from: &Node, to: &Node| {
        from.mesh.introduce(to.id(), vec![to.address()]);
        match within(from.mesh.open(to.id(), Alpn::Peer)).await {
            Err(MeshError::Unreachable { tried, .. }) => tried[0].because.clone(),
            other => panic!("{other:?}"),
        }
    };
    let again = "refused: the cluster was recovered, and the caller does not belong to its new epoch: it joins again as a new node";
    let behind = "refused: this node was left behind when the cluster was recovered";
    let is_told = |node: &Node| node.mesh.0.left_behind.load(Ordering::Relaxed);

    let (survivor, old) = (start(1, 1, true).run(), start(2, 0, true).run());
    assert_eq!(why(&old, &survivor).await, again);
    assert!(is_told(&old) && !is_told(&survivor));
    assert_eq!(why(&survivor, &start(3, 0, true).run()).await, behind);
    assert!(!is_told(&survivor));
    // The survivor does not count it as a member any more, and still says why.
    assert_eq!(why(&start(2, 0, true).run(), &start(1, 1, false).run()).await, again);
    // Two survivors that both went on alone are not one cluster.
    let other = Start { epoch: Epoch { number: 1, survivor: NodeId(9) }, ..start(2, 1, true) };
    assert_eq!(why(&other.run(), &start(1, 1, true).run()).await, again);
    // Nodes of the same epoch are.
    let (one, two) = (start(1, 1, true).run(), start(2, 1, true).run());
    one.mesh.introduce(two.id(), vec![two.address()]);
    assert!(reach(&one, two.id(), Alpn::Peer).await.starts_with("peer heard"));
}

#[tokio::test]
async fn the_port_is_free_when_the_mesh_has_ended_although_its_peers_live_on() {
    let (n1, n2) = pair();
    n1.mesh.introduce(n2.id(), vec![n2.address()]);
    reach(&n1, n2.id(), Alpn::Peer).await;
    let (address, port, weak) = (n1.address(), n1.mesh.port(), n1.mesh.downgrade());
    assert!(crate::socket::bind(address).is_err());
    n1.stop().await;
    within(port.freed()).await;
    assert!(weak.upgrade().is_none());
    crate::socket::bind(address).unwrap();
}
