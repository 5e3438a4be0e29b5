//! What has to end before a node may begin again in this same process.
//!
//! Invariant: whoever waits for the ending finds the port free afterwards, or was told that it may not be.

use std::time::Duration;

use quorate_mesh::PortInUse;
use tokio::{sync::SetOnce, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the parts may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// The parts of a node that runs, as far as they have to end.
#[derive(Default)]
pub(super) struct Ending {
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) port: SetOnce<PortInUse>,
}

impl Ending {
    /// Stops everything, and waits until it has ended.
    pub(super) async fn wait(self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = async {
            self.tasks.wait().await;
            if let Some(port) = self.port.get() {
                port.freed().await;
            }
        };
        if timeout(STOP, ended).await.is_err() {
            tracing::warn!("{} tasks, or the port, did not end within {} s", self.tasks.len(), STOP.as_secs());
        }
    }
}
