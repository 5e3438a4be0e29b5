//! Who may not join.

use std::{fs, time::Duration};

use quorate_proto::token::{Secret, Token};
use quorate_tests::hosts::{
    cluster::{Cluster, PATIENCE},
    said::Said,
    wait::{pass, so, until},
};

use super::{in_vain, left_nothing};

/// Where a machine that wants to join listens: this machine, as the hosts see it.
const JOINER: &str = "--listen 10.99.0.254:7500 --simulated --name n9";

/// Tries to join with a token, and checks that it changes nothing, neither in the cluster nor at the joiner.
fn join_in_vain(cluster: &Cluster, token: &str) -> Said {
    let data = cluster.directory().join("joiner");
    let said = in_vain(cluster, || {
        cluster.start_in_vain(None, &format!("join {token} {JOINER} --data-dir {}", data.display()))
    });
    left_nothing(&data);
    said
}

fn create(cluster: &Cluster, words: &str) -> (String, Token) {
    let text = cluster.done(&format!("token create {words}")).trim().to_owned();
    let token = text.parse().unwrap();
    (text, token)
}

#[test]
fn a_token_that_is_wrong_spent_revoked_expired_or_of_another_cluster_lets_nobody_in() {
    let cluster = Cluster::up();
    cluster.settle();

    let (text, token) = create(&cluster, "");
    let at = text.len() / 2;
    let mistyped = format!("{}{}{}", &text[..at], if &text[at..=at] == "A" { "B" } else { "A" }, &text[at + 1..]);
    join_in_vain(&cluster, &mistyped).refused(1, &["mistyped", "quorate token create"]);
    join_in_vain(&cluster, &text[..40]).refused(1, &["token", "quorate token create"]);
    let guessed = Token { secret: Secret([7; 16]), ..token.clone() };
    join_in_vain(&cluster, &guessed.reveal()).refused(1, &["token"]);

    let revoked = create(&cluster, "");
    let _ = cluster.done(&format!("token revoke {}", revoked.1.id));
    join_in_vain(&cluster, &revoked.0).refused(1, &["token"]);

    let expired = create(&cluster, "--ttl 1s").0;
    pass(Duration::from_millis(2000));
    join_in_vain(&cluster, &expired).refused(1, &["token"]);

    // Another cluster, beside this one.
    let (data, log) = (cluster.directory().join("other"), cluster.directory().join("other.log"));
    let start = "--simulated --name o1 --listen 127.0.0.1:7600 --advertise 127.0.0.1:7600 --data-dir";
    let other = cluster.daemon_beside(&format!("up --context other {start} {}", data.display()), &log);
    until("another cluster", PATIENCE, || {
        let said = cluster.run("status --context other --request-timeout 1s");
        so(said.out.contains("Leader:     o1"), said.to_string())
    });
    let foreign: Token = cluster.done("token create --context other").trim().parse().unwrap();
    let misled = Token { addresses: token.addresses, ..foreign };
    join_in_vain(&cluster, &misled.reveal()).refused(1, &["cluster"]);

    // Its node is told to join ours.
    drop(other);
    let identity = fs::read(data.join("identity.pem")).unwrap();
    let said = in_vain(&cluster, || cluster.start_in_vain(None, &format!("join {text} {start} {}", data.display())));
    said.refused(1, &["belongs to a node of cluster", "--fresh"]);
    assert_eq!(fs::read(data.join("identity.pem")).unwrap(), identity);

    // After all this the token is still good, once.
    let (data, log) = (cluster.directory().join("n4"), cluster.directory().join("n4.log"));
    let words = format!("join {text} --listen 10.99.0.254:7501 --simulated --name n4 --data-dir {}", data.display());
    let _joined = cluster.daemon_beside(&words, &log);
    until("a fourth node that is ready", PATIENCE, || {
        let said = cluster.run("get nodes");
        let ready = said.out.lines().any(|line| line.starts_with("n4 ") && line.contains(" Ready "));
        so(ready, format!("{said}\n{}", fs::read_to_string(&log).unwrap()))
    });
    cluster.settle();
    join_in_vain(&cluster, &text).refused(1, &["token"]);
}
