use proptest::prelude::*;
use quorate_proto::{
    kinds::{CONFIGMAPS, PODS},
    object::Object,
    request::Read,
    txn::{Revision, Txn},
};
use serde_json::json;

use super::*;
use crate::seam::Desired;
use crate::testing::{Memory, Still, World};

/// One step of the world: a config map gets a label's value, or goes; several steps in one transaction.
type Step = Vec<(u8, Option<u8>)>;

fn txn(step: &Step) -> Txn {
    let mut seen = std::collections::BTreeSet::new();
    let mut txn = Txn::new();
    for (name, label) in step {
        let key = CONFIGMAPS.key(None, &format!("c{name}")).unwrap();
        if !seen.insert(key.clone()) {
            continue;
        }
        let metadata = json!({"name": key.name(), "namespace": "default", "labels": {"app": label.map(|label| label.to_string())}});
        txn = match label {
            Some(_) => {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
                txn.put(key, Object::from_value(object).unwrap().to_document())
            }
            None => txn.delete(key),
        };
    }
    // Something that is none of the watch's business.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}});
    txn.put(PODS.key(None, "p").unwrap(), Object::from_value(pod).unwrap().to_document())
}

fn selection(labels: &str, shape: Shape) -> Selection {
    Selection {
        kind: "cm".into(),
        namespace: None,
        labels: labels.into(),
        fields: String::new(),
        shape,
        read: Read::Stale,
    }
}

async fn watch(memory: &Arc<Memory>, selection: &Selection) -> BoxStream<'static, Answer> {
    let snapshot = memory.snapshot(Read::Stale).await.unwrap();
    let changes = memory.changes(snapshot.revision());
    answers(selection, &snapshot, changes, Arc::new(Still)).unwrap().boxed()
}

fn selected(memory: &Memory) -> BTreeMap<String, String> {
    let now = memory.now();
    let selected = now.list(&CONFIGMAPS).filter(|stored| stored.object.label("app") == Some("1"));
    selected.map(|stored| (stored.object.name().to_owned(), stored.shown().to_string())).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #[test]
    fn what_a_watch_tells_adds_up_to_what_is_selected_at_every_revision(
        before in prop::collection::vec(prop::collection::vec((0_u8..4, prop::option::of(0_u8..3)), 1..3), 0..4),
        after in prop::collection::vec(prop::collection::vec((0_u8..4, prop::option::of(0_u8..3)), 1..3), 1..12),
    ) {
        runtime().block_on(async move {
            let memory = Memory::new(World::new().snapshot);
            for step in &before {
                memory.commit(&txn(step));
            }
            let mut told = watch(&memory, &selection("app=1", Shape::Objects)).await;
            let mut states = vec![(memory.now().revision(), selected(&memory))];
            for step in &after {
                memory.commit(&txn(step));
                states.push((memory.now().revision(), selected(&memory)));
            }
            // An object that is selected at the end tells that all before it was told.
            memory.commit(&txn(&vec![(9, Some(1))]));
            let mut present: BTreeMap<String, String> = BTreeMap::new();
            let mut last = Revision(0);
            loop {
                let Some(Answer::Event { kind, object }) = told.next().await else { panic!("the watch ended") };
                let object = Object::from_document(&object).unwrap();
                let revision = Revision(object.text(&["metadata", "resourceVersion"]).unwrap().parse().unwrap());
                // Up to here, everything that happened before this revision was told.
                let reached = states.iter().rev().find(|(at, _)| *at < revision && *at >= last);
                if let Some((_, state)) = reached.filter(|(at, _)| *at >= states[0].0) {
                    assert_eq!(&present, state, "before {revision}");
                }
                last = revision.max(last);
                let name = object.name().to_owned();
                let before = match kind {
                    EventKind::Deleted => present.remove(&name),
                    EventKind::Added | EventKind::Modified => present.insert(name.clone(), object.to_string()),
                };
                assert_eq!(before.is_some(), kind != EventKind::Added, "{kind:?} {name}");
                if name == "c9" {
                    break;
                }
            }
            present.remove("c9");
            assert_eq!(present, states.pop().unwrap().1);
        });
    }
}

#[test]
fn a_watch_as_a_table_begins_with_its_headings() {
    runtime().block_on(async {
        let memory = Memory::new(World::new().snapshot);
        memory.commit(&txn(&vec![(1, Some(1))]));
        let mut told = watch(&memory, &selection("", Shape::Table)).await;
        memory.commit(&txn(&vec![(1, None)]));
        let mut next = async || match told.next().await {
            Some(Answer::Table(table)) => (table.columns.len(), table.rows.into_iter().map(|row| row.name).collect()),
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, (3, vec![]));
        assert_eq!(next().await, (0, vec!["c1".to_owned()]));
        assert_eq!(next().await, (0, vec!["c1".to_owned()]), "deleted");
    });
}

#[test]
fn a_watch_that_cannot_go_on_says_why_and_ends() {
    runtime().block_on(async {
        let snapshot = World::new().snapshot;
        let compacted = Refusal::new(Reason::Expired, "the watch ended", "revision 1 is no longer kept");
        for (changes, reason) in [(vec![Err(compacted)], Reason::Expired), (vec![], Reason::Unavailable)] {
            let told =
                answers(&selection("", Shape::Objects), &snapshot, stream::iter(changes).boxed(), Arc::new(Still));
            let told: Vec<_> = told.unwrap().collect().await;
            assert!(matches!(&told[..], [Answer::Refused(refusal)] if refusal.reason == reason), "{told:?}");
        }
    });
}
