//! The way in, and what a user is told when it is closed.

use super::*;
use crate::testing::{Chance, Start, Still, ask, authority, days, identity, wall, within};

const NOWHERE: &str = "127.0.0.1:9";

async fn connect(endpoints: &[&str], identity: &UserIdentity) -> Result<Client, ClientError> {
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    within(Client::connect(&endpoints, identity, Arc::new(Still::default()))).await
}

#[tokio::test]
async fn a_user_reaches_the_first_member_that_answers() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let ada = UserIdentity::issue(&ca, "ada", wall(), &Chance::new(1)).unwrap();
    let client = connect(&[NOWHERE, &n1.address().to_string()], &ada).await.unwrap();
    assert_eq!(client.address(), n1.address());
    let mut stream = client.open().await.unwrap();
    let answer = within(ask(&mut stream, "hi")).await.unwrap();
    assert_eq!(answer, "client heard hi from user/ada for quorate-client/1");
    client.close().await;
}

#[tokio::test]
async fn a_node_may_be_a_client_too() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let endpoints = [n1.address().to_string()];
    let clock = Arc::new(Still::default());
    let client = within(Client::connect_as_node(&endpoints, &identity(&ca, 2), clock)).await.unwrap();
    let mut stream = client.open().await.unwrap();
    assert!(within(ask(&mut stream, "hi")).await.unwrap().contains("from node/"));
}

#[tokio::test]
async fn nobody_there_is_told_with_all_that_was_tried() {
    let ada = UserIdentity::issue(&authority(1), "ada", wall(), &Chance::new(1)).unwrap();
    let refusal = connect(&[NOWHERE, "nowhere.invalid:7443"], &ada).await.unwrap_err().refusal("web was not applied");
    assert_eq!(refusal.exit_code(), 3);
    assert!(refusal.because.starts_with("no member of the cluster answered (127.0.0.1:9: no answer; nowhere.invalid:7443: the name cannot be resolved"), "{refusal}");
    assert!(matches!(connect(&[], &ada).await, Err(ClientError::NoEndpoint)));
}

#[tokio::test]
async fn another_cluster_at_the_endpoint_is_told_as_such() {
    let n1 = Start::new(identity(&authority(2), 1)).run();
    let ada = UserIdentity::issue(&authority(1), "ada", wall(), &Chance::new(1)).unwrap();
    let error = connect(&[&n1.address().to_string()], &ada).await.unwrap_err();
    assert!(matches!(&error, ClientError::OtherCluster { tried } if tried[0].because == "another cluster answered"));
    assert_eq!(error.refusal("x").exit_code(), 1);
}

#[tokio::test]
async fn an_expired_user_is_told_to_log_in_again() {
    let ca = authority(1);
    let n1 = Start::new(identity(&ca, 1)).run();
    let ada = UserIdentity::issue(&ca, "ada", days(-400), &Chance::new(1)).unwrap();
    let client = connect(&[&n1.address().to_string()], &ada).await.unwrap();
    let refused = match client.open().await {
        Ok(mut stream) => {
            assert!(within(ask(&mut stream, "hi")).await.is_err());
            client.why_closed().unwrap()
        }
        Err(error) => error,
    };
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused:?}");
    assert_eq!(refused.refusal("x").hint.unwrap(), "log in again with a token from an administrator");
}
