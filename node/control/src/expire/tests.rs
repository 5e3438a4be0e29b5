//! What has a limited life, and when it is looked at.

use quorate_proto::world::rfc3339;
use serde_json::json;

use super::*;
use crate::cluster::Cluster;

#[test]
fn join_tokens_and_events_go_when_their_time_is_over() {
    let mut cluster = Cluster::of_nodes(0);
    let start = cluster.now;
    let wall = cluster.moment().wall;
    cluster.apply(json!({"apiVersion": "quorate.dev/v1", "kind": "JoinToken", "metadata": {"name": "t"},
        "spec": {"expires": rfc3339(wall + Duration::from_secs(30))}}));
    for number in 0..150 {
        cluster.apply(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("e{number}")}, "lastTimestamp": rfc3339(wall)}));
    }
    let counts = |cluster: &Cluster| (cluster.objects.list(&JOINTOKENS).count(), cluster.objects.list(&EVENTS).count());

    assert_eq!(cluster.settle().wake_at, Some(start + PAUSE), "no more than once a minute");
    assert_eq!(counts(&cluster), (1, 150));
    cluster.now = start + PAUSE;
    assert_eq!(cluster.settle().wake_at, Some(start + Duration::from_secs(3600)));
    assert_eq!(counts(&cluster), (0, 150));
    cluster.now = start + Duration::from_secs(3600);
    assert_eq!(cluster.settle().wake_at, None);
    assert_eq!(counts(&cluster), (0, 0));
}
