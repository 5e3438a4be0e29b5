//! Learns where the nodes of a cluster are, from whichever answers.
//!
//! The context that founding a cluster writes knows one node. Whoever is asked knows the others, so that the next command, and a watch
//! that goes on, reach any of them when that one is lost.
//!
//! Invariant: it holds up no command, and the file is written only when something in it is new.

use std::{path::Path, time::Duration};

use quorate_proto::request::{Answer, Request};
use tokio::time::timeout;

use crate::{
    client::Client,
    config::{Config, ConfigError},
    failure::Failure,
};

/// How long a command that is done waits for the answer it asked for beside its own.
const GRACE: Duration = Duration::from_millis(250);

/// Runs a command, and learns beside it.
///
/// # Errors
/// Those of the command.
pub(crate) async fn learning(
    learn: impl Future<Output = ()>,
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::pin!(learn, command);
    tokio::select! {
        biased;
        done = &mut command => {
            if done.is_ok() {
                // Whoever has not answered by now is asked again by the next command.
                timeout(GRACE, learn).await.unwrap_or_default();
            }
            done
        }
        () = &mut learn => command.await,
    }
}

/// Asks where the nodes are, goes on to know it, and writes it into the context of this name.
///
/// # Errors
/// If the contexts cannot be written. That nobody answers is the command's own to say.
pub(crate) async fn learn(client: &Client, contexts: &Path, name: Option<&str>) -> Result<(), ConfigError> {
    // The socket of this machine leads to one node, and says nothing of who asks another.
    let Some(name) = name else { return Ok(()) };
    let Ok(Answer::Endpoints(told)) = client.ask(Request::Endpoints).await else { return Ok(()) };
    let answered = client.learn(&told);
    Config::update(contexts, |config| {
        if let Some(context) = config.contexts.get_mut(name) {
            context.learn(&answered.unwrap_or_default(), &told);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::tests::Recorded, config::Context};

    const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

    fn written(path: &Path, endpoints: &[&str]) {
        let context = Context {
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            cluster: CLUSTER.to_owned(),
            identity: String::new(),
            namespace: None,
        };
        Config { current: None, contexts: [("dev".to_owned(), context)].into() }.write(path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_context_that_knows_one_node_learns_of_the_others_and_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        written(&path, &["n1:7443"]);
        let told = || Ok(vec![Answer::Endpoints(["n1:7443", "n2:7443", "n3:7443"].map(str::to_owned).to_vec())]);
        let client = Recorded::new([told(), told()]).client();
        learn(&client, &path, Some("dev")).await.unwrap();
        assert_eq!(Config::read(&path).unwrap().contexts["dev"].endpoints, ["n1:7443", "n2:7443", "n3:7443"]);

        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        let before = inode();
        learn(&client, &path, Some("dev")).await.unwrap();
        assert_eq!(inode(), before, "a file that is written is another one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_waits_for_nobody_who_does_not_tell() {
        let begun = tokio::time::Instant::now();
        learning(std::future::pending(), async { Ok(()) }).await.unwrap();
        assert_eq!(begun.elapsed(), GRACE);
        let refused = learning(std::future::pending(), async { Err(Failure::usage("a", "b", "c")) }).await;
        assert!(refused.is_err() && begun.elapsed() == GRACE);
    }
}
