use futures_util::stream::BoxStream;
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

/// The events up to the one that adds `c9`, applied to what was selected before; each must fit what is there.
async fn follow(
    mut told: BoxStream<'static, Answer>,
    mut present: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    loop {
        let (kind, object) = match told.next().await {
            Some(Answer::Event { kind, object }) => (kind, Object::from_document(&object).unwrap()),
            Some(Answer::Bookmark(_)) => continue,
            other => panic!("{other:?}"),
        };
        let name = object.name().to_owned();
        let before = match kind {
            EventKind::Deleted => present.remove(&name),
            EventKind::Added | EventKind::Modified => present.insert(name.clone(), object.to_string()),
        };
        assert_eq!(before.is_some(), kind != EventKind::Added, "{kind:?} {name}");
        if name == "c9" {
            return present;
        }
    }
}

proptest! {
    #[test]
    fn a_watch_that_is_resumed_from_any_revision_tells_what_has_changed_since_and_nothing_else(
        steps in prop::collection::vec(prop::collection::vec((0_u8..4, prop::option::of(0_u8..3)), 1..3), 1..12),
        later in prop::collection::vec(prop::collection::vec((0_u8..4, prop::option::of(0_u8..3)), 1..3), 0..4),
    ) {
        runtime().block_on(async move {
            let memory = Memory::new(World::new().snapshot);
            let mut states = Vec::new();
            for step in &steps {
                memory.commit(&txn(step));
                states.push((memory.now().revision(), selected(&memory)));
            }
            let snapshot = memory.now();
            let resume = |after| {
                let desired: Arc<dyn Desired> = memory.clone();
                resumed(&selection("app=1", Shape::Objects), &snapshot, after, desired, Arc::new(Still)).unwrap().boxed()
            };
            let watches: Vec<_> = states.into_iter().map(|(revision, state)| (resume(revision), state)).collect();
            for step in &later {
                memory.commit(&txn(step));
            }
            memory.commit(&txn(&vec![(9, Some(1))]));
            for (told, state) in watches {
                assert_eq!(follow(told, state).await, selected(&memory));
            }
        });
    }
}

#[test]
fn bookmarks_say_from_where_a_watch_can_be_resumed() {
    runtime().block_on(async {
        let memory = Memory::new(World::new().snapshot);
        memory.commit(&txn(&vec![(1, Some(1)), (2, Some(1))]));
        let snapshot = memory.now();
        let selection = selection("", Shape::Objects);
        let changes = memory.changes(snapshot.revision());
        let mut told = resumable(&selection, &snapshot, changes, Arc::new(Still)).unwrap().boxed();
        let mut next = async || match told.next().await {
            Some(Answer::Event { object, .. }) => Err(Object::from_document(&object).unwrap().name().to_owned()),
            Some(Answer::Bookmark(revision)) => Ok(revision),
            other => panic!("{other:?}"),
        };
        let begun = snapshot.revision();
        assert_eq!([next().await, next().await, next().await], [Err("c1".into()), Err("c2".into()), Ok(begun)]);

        // What one revision changed comes before its bookmark.
        memory.commit(&txn(&vec![(1, None), (3, Some(1))]));
        let after = memory.now().revision();
        assert_eq!([next().await, next().await, next().await], [Err("c1".into()), Err("c3".into()), Ok(after)]);

        // What is none of its business is passed over, but not without end.
        for _ in 0..BOOKMARK_EVERY {
            memory.commit(&txn(&vec![]));
        }
        assert_eq!(next().await, Ok(memory.now().revision()));

        let mut again = resumed(&selection, &memory.now(), after, memory.clone(), Arc::new(Still)).unwrap().boxed();
        assert_eq!(again.next().await, Some(Answer::Bookmark(after)), "it says at once that it is heard");
    });
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
