use std::fs;

use quorate_proto::{
    kinds::CONFIGMAPS,
    txn::{Outcome, Txn},
    world::Instant,
};
use quorate_raft::{Config, Network, NetworkError, Pipe, Storage, Store, Timing, Urgency};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    recovery::{self, Cut},
    registration::Moment,
    world::{SystemClock, SystemRandom},
};

/// There is nobody else.
struct Alone;

#[async_trait::async_trait]
impl Network for Alone {
    async fn call(
        &self,
        _to: quorate_proto::ids::NodeId,
        _request: bytes::Bytes,
        _urgency: Urgency,
        _deadline: std::time::Duration,
    ) -> Result<bytes::Bytes, NetworkError> {
        Err(NetworkError::Unreachable("nobody".to_owned()))
    }

    async fn open(&self, _to: quorate_proto::ids::NodeId) -> Result<Pipe, NetworkError> {
        Err(NetworkError::Unreachable("nobody".to_owned()))
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Instant {
        Instant::default()
    }

    fn wall(&self) -> quorate_proto::world::Timestamp {
        "2027-01-01T12:00:00Z".parse().unwrap()
    }
}

/// Founds a cluster of one node in a directory, writes something into it, takes a backup, and stops.
async fn lived(data: &Path) -> Vec<u8> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let settings = ClusterSettings {
        cluster_id: ClusterId(7),
        service_range: "10.213.0.0/16".parse().unwrap(),
        pod_range: "10.214.0.0/16".parse().unwrap(),
        zone: "cluster.local".to_owned(),
    };
    let clock = SystemClock::start();
    let Founding { identity, key, mut record, .. } = founding::make(settings, "n1", &random, clock.wall()).unwrap();
    let home = Home::open(data).unwrap();
    identity.store(home.path()).unwrap();
    home.keep_cluster_key(&key).unwrap();
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let config = Config::new(record.cluster.cluster_id, identity.node, Timing::QUICK);
    let storage = Storage::Disk(home.store());
    let store =
        Store::open(config, storage, Arc::new(Alone), Arc::clone(&random), tasks.clone(), shutdown).await.unwrap();
    store.initialize().await.unwrap();
    let moment = Moment { wall: clock.wall(), random: &*random };
    let secrets = record.founding.take().unwrap();
    let first = registration::found(&record.cluster, &secrets, identity.node, "n1", &moment).unwrap();
    store.propose(random.request_id(), first.txn).await.unwrap();
    let greeting = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"greeting","namespace":"default"}}"#;
    let key = CONFIGMAPS.key(Some("default"), "greeting").unwrap();
    let txn = Txn::new().put(key, quorate_proto::txn::Document(bytes::Bytes::from_static(greeting)));
    assert!(matches!(store.propose(random.request_id(), txn).await.unwrap(), Outcome::Applied(_)));
    home.remember(&record).unwrap();
    let read = quorate_proto::request::Read::Linearizable;
    let pieces: Vec<bytes::Bytes> =
        futures_util::TryStreamExt::try_collect(store.backup(read, clock.wall()).await.unwrap()).await.unwrap();
    store.shutdown().await;
    tasks.close();
    tasks.wait().await;
    pieces.concat()
}

struct Place {
    _directory: tempfile::TempDir,
    old: PathBuf,
    file: PathBuf,
    target: Target,
}

async fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let (old, file) = (directory.path().join("old"), directory.path().join("backup"));
    fs::write(&file, lived(&old).await).unwrap();
    let target = Target { data: directory.path().join("new"), name: "m1".to_owned(), addresses: Vec::new() };
    Place { _directory: directory, old, file, target }
}

fn restore_to(file: &Path, target: &Target, dry_run: bool) -> Result<Restoration, Refusal> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    restore(file, target, dry_run, &Noon, &random, |_| Ok(()))
}

fn because(result: Result<impl std::fmt::Debug, Refusal>) -> String {
    result.unwrap_err().because
}

#[tokio::test]
async fn a_dry_run_says_what_a_restore_would_come_to_and_writes_nothing() {
    let Place { file, target, _directory, .. } = place().await;
    let dry = restore_to(&file, &target, true).unwrap();
    assert_eq!((dry.cluster, dry.left.nodes, dry.summary.resources.get("configmaps")), (None, 1, Some(&1)));
    assert!(!target.data.exists());
    assert_eq!(inspect(File::open(&file).unwrap(), "backup", "it was not read").unwrap(), dry.summary);
}

#[tokio::test]
async fn a_restore_makes_a_node_of_a_new_cluster_with_a_new_authority_and_the_old_state() {
    let Place { file, target, old, _directory } = place().await;
    let made = restore_to(&file, &target, false).unwrap();
    let home = Home::open(&target.data).unwrap();
    let record = home.startable().unwrap().unwrap();
    assert_eq!(Some(record.cluster.cluster_id), made.cluster);
    assert_ne!(record.cluster.cluster_id, ClusterId(7));
    assert!(matches!(record.adoption, Some(Adoption::Restored { .. })) && !home.restoring().exists());
    let [new, before] = [&target.data, &old].map(|data| quorate_mesh::Identity::load(data).unwrap());
    assert!(new.node != before.node && new.pins().unwrap() != before.pins().unwrap());
    assert_eq!(because(restore_to(&file, &target, false)), format!("another daemon uses {}", target.data.display()));
    drop(home);
    assert_eq!(because(restore_to(&file, &target, false)), format!("{} holds a node", target.data.display()));
    assert_eq!(because(restore_to(&file, &target, true)), format!("{} holds a node", target.data.display()));
}

#[tokio::test]
async fn a_restore_that_was_killed_begins_anew_and_nothing_starts_before() {
    let Place { file, target, _directory, .. } = place().await;
    // Killed while the store was written, and then right before the record was.
    for leaves in ["restoring/store/db", "store/db"] {
        fs::create_dir_all(target.data.join("restoring")).unwrap();
        fs::create_dir_all(target.data.join(leaves)).unwrap();
    }
    let home = Home::open(&target.data).unwrap();
    let refused = home.startable().unwrap_err().refusal("the daemon did not start");
    assert!(refused.to_string().contains("restored into") && refused.hint.unwrap().contains("again"), "{home:?}");
    drop(home);
    restore_to(&file, &target, false).unwrap();
    assert!(Home::open(&target.data).unwrap().startable().unwrap().is_some());
}

#[tokio::test]
async fn a_store_of_nobody_is_not_written_over() {
    let Place { file, target, _directory, .. } = place().await;
    fs::create_dir_all(target.data.join("store")).unwrap();
    assert!(because(restore_to(&file, &target, false)).ends_with("holds a store, although no node"));
    assert!(target.data.join("store").exists());
}

#[tokio::test]
async fn a_backup_that_is_not_whole_makes_nothing() {
    let Place { file, target, _directory, .. } = place().await;
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = restore_to(&file, &target, false).unwrap_err();
    assert!(refused.because.contains("is cut short") && refused.hint.unwrap().contains("another copy"));
    assert!(!target.data.exists());
}

#[tokio::test]
async fn a_survivor_begins_a_new_epoch_and_a_recovery_that_was_killed_must_be_finished_first() {
    let Place { old, _directory, .. } = place().await;
    let before = recovery::survey(&old).unwrap();
    assert_eq!((before.epoch.number, before.names.values().cloned().collect::<Vec<_>>()), (0, vec!["n1".to_owned()]));

    // Killed after it was begun.
    let home = Home::open(&old).unwrap();
    let refused = recovery::survey(&old).unwrap_err();
    assert_eq!(refused.because, format!("the daemon runs in {}", old.display()));
    let mut record = home.record().unwrap().unwrap();
    record.recovering = Some(record.epoch.after(before.node));
    home.remember(&record).unwrap();
    assert!(home.startable().unwrap_err().to_string().ends_with("was not finished"));
    drop(home);

    let after = recovery::recover(&old, Cut::Last).unwrap();
    assert_eq!(
        (after.epoch.number, after.epoch.survivor, after.survivor.revision),
        (1, before.node, before.survivor.revision)
    );
    let home = Home::open(&old).unwrap();
    let record = home.startable().unwrap().unwrap();
    assert_eq!((record.adoption, record.epoch), (Some(Adoption::Recovered), after.epoch));
    drop(home);
    assert_eq!(recovery::recover(&old, Cut::Last).unwrap().epoch.number, 2, "each time it is another");
    let none = recovery::survey(&old.join("nothing")).unwrap_err();
    assert!(none.because.ends_with("holds no node") && !old.join("nothing").exists());
}

#[test]
fn a_file_that_is_no_backup_is_told_from_one_that_is_damaged() {
    let told = |bytes: &[u8]| inspect(bytes, "f", "f was not read").unwrap_err().to_string();
    assert_eq!(
        told(b"kind: Pod"),
        "error: f was not read\n  because: f: it is no backup: it does not begin with `quorate backup`\n  hint: `quorate backup save FILE` makes one"
    );
    assert!(told(b"quorate backup\n\x02").contains("has format version 2"));
}
