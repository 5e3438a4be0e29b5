//! Random commands, done by the state machine on both engines and by the model: all must agree on everything that can be asked.

use std::sync::Arc;

use proptest::prelude::*;
use quorate_proto::{
    branch::{Branch, Comparison, Operation as Do, Operator, Target},
    query::{Query, Select},
    range::KeyRange,
};

use super::{model::Model, *};
use crate::engine::Disk;

/// One node's rows, and how many entries it applies at a time.
struct Node {
    rows: Arc<dyn Engine>,
    group: usize,
    steps: usize,
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![Just("a"), Just("a\0"), Just("b"), Just("ba"), Just("c")].prop_map(pod)
}

fn range() -> impl Strategy<Value = KeyRange> {
    let between = (key(), key())
        .prop_map(|(from, to)| KeyRange::between(from.as_str(), to.as_str()).unwrap_or_else(|_| KeyRange::key(&from)));
    let prefix = key().prop_map(|key| KeyRange::prefix(key.as_str()).unwrap());
    prop_oneof![3 => key().prop_map(|key| KeyRange::key(&key)), 1 => between, 1 => prefix, 1 => Just(KeyRange::all())]
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1_u64..4).prop_map(|number| LeaseId::new(number).unwrap())
}

fn some_document() -> impl Strategy<Value = Document> {
    (0_u8..4).prop_map(|digit| Document(Bytes::from(vec![b'0' + digit])))
}

fn query_of_any() -> impl Strategy<Value = Query> {
    let select = prop_oneof![2 => Just(Select::Rows), 1 => Just(Select::Keys), 1 => Just(Select::Count)];
    (range(), 0_u32..4, proptest::option::of(0_u64..12), select).prop_map(|(range, limit, at, select)| Query {
        range,
        limit,
        at: at.map(Revision),
        select,
    })
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let target = prop_oneof![
        some_document().prop_map(Target::Value),
        (0_u64..4).prop_map(Target::Version),
        (0_u64..12).prop_map(|revision| Target::Created(Revision(revision))),
        (0_u64..12).prop_map(|revision| Target::Modified(Revision(revision))),
        proptest::option::of(lease()).prop_map(Target::Lease),
    ];
    let operator =
        prop_oneof![Just(Operator::Equal), Just(Operator::NotEqual), Just(Operator::Less), Just(Operator::Greater)];
    (range(), operator, target).prop_map(|(range, operator, target)| Comparison { range, operator, target })
}

fn branch_of(operation: impl Strategy<Value = Do> + Clone) -> impl Strategy<Value = Branch> {
    let operations = || proptest::collection::vec(operation.clone(), 0..4);
    (proptest::collection::vec(comparison(), 0..3), operations(), operations())
        .prop_map(|(compares, then, otherwise)| Branch { compares, then, otherwise })
}

fn branch() -> impl Strategy<Value = Branch> {
    let put = (key(), some_document(), proptest::option::weighted(0.4, lease()), any::<bool>())
        .prop_map(|(key, document, lease, previous)| Do::Put { key, document, lease, previous });
    let delete = (range(), any::<bool>()).prop_map(|(range, previous)| Do::Delete { range, previous });
    let leaf = prop_oneof![4 => put, 1 => delete, 1 => query_of_any().prop_map(Do::Query)].boxed();
    branch_of(leaf.prop_recursive(2, 8, 3, |within| branch_of(within).prop_map(Do::Branch)).boxed())
}

fn txn() -> impl Strategy<Value = Txn> {
    let seen = proptest::option::weighted(0.1, (key(), proptest::option::of((0_u64..12).prop_map(Revision))));
    let write = prop_oneof![
        3 => (key(), some_document()).prop_map(|(key, document)| Write::Put(key, document)),
        1 => key().prop_map(Write::Delete),
    ];
    (seen, proptest::collection::vec(write, 0..3)).prop_map(|(seen, writes)| {
        let txn = Txn { compares: Vec::new(), writes };
        match seen {
            Some((key, seen)) => txn.expect(key, seen),
            None => txn,
        }
    })
}

/// Some of them retries: requests are few.
fn command() -> impl Strategy<Value = Command> {
    let request = || (0_u128..40).prop_map(RequestId);
    prop_oneof![
        3 => (request(), txn()).prop_map(|(request, txn)| Command::Apply { request, txn }),
        4 => (request(), branch()).prop_map(|(request, branch)| Command::Branch { request, branch }),
        1 => (request(), 0_u64..12).prop_map(|(request, at)| Command::Compact { request, revision: Revision(at) }),
        2 => (request(), lease()).prop_map(|(request, lease)| Command::Grant { request, lease, ttl_seconds: 60 }),
        1 => (request(), lease()).prop_map(|(request, lease)| Command::Revoke { request, lease, granted: None }),
    ]
}

fn agree(node: &Node, model: &Model) {
    let revision = Revision(model.revision());
    look(&*node.rows, |view| {
        let meta = check(view)?;
        assert_eq!((meta.revision, meta.compacted), (revision, Revision(model.compacted)));
        for at in (0..=model.revision() + 1).map(|at| Some(Revision(at))).chain([None]) {
            let asked = Query { at, ..Query::new(KeyRange::all()) };
            assert_eq!(query(view, &asked)?, model.query(model.present(), &asked), "at {at:?}");
        }
        for after in 0..=model.revision() {
            match replay(view, Revision(after), usize::MAX, true)? {
                Replay::Compacted(oldest) => {
                    assert!(after < model.compacted && oldest.0 == model.compacted, "{after}");
                }
                Replay::Updates(updates) => {
                    assert!(after >= model.compacted);
                    let updates: Vec<_> = updates.iter().map(|update| Update::clone(update)).collect();
                    assert_eq!(updates, model.updates[usize::try_from(after).unwrap()..]);
                }
            }
        }
        let granted: Vec<_> = leases(view)?;
        assert_eq!(granted.iter().map(|(lease, _)| *lease).collect::<Vec<_>>(), Vec::from_iter(model.leases.clone()));
        for (lease, row) in granted {
            let keys = attached(view, lease)?;
            let expected = model.present().values().filter(|row| row.lease == Some(lease)).map(|row| row.key.clone());
            assert_eq!(keys, expected.collect::<Vec<_>>());
            assert_eq!(row.keys as usize, keys.len());
        }
        Ok(())
    })
    .unwrap();
}

/// A few steps of a sweep, or all of it.
fn sweep_some(node: &Node, steps: usize, operations: usize) {
    for _ in 0..steps {
        match look(&*node.rows, |view| sweep(view, operations)).unwrap() {
            Some(batch) => node.rows.write(batch).unwrap(),
            None => return,
        }
    }
}

fn rows_of(node: &Node, column: Column) -> usize {
    let mut count = 0;
    look(&*node.rows, |view| {
        view.scan(column, &[], None, &mut |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })
    })
    .unwrap();
    count
}

fn story(nodes: &[Node], commands: &[Command]) {
    let mut model = Model::new();
    let outcomes: Vec<_> = commands.iter().map(|command| model.apply(command)).collect();
    for node in nodes {
        let mut model = Model::new();
        let (mut index, mut cache) = (0, None);
        for group in commands.chunks(node.group) {
            let from = usize::try_from(index).unwrap();
            let done = apply(&*node.rows, &mut cache, index, group, ANSWERS);
            assert_eq!(done, outcomes[from..from + group.len()]);
            index += group.len() as u64;
            group.iter().for_each(|command| drop(model.apply(command)));
            sweep_some(node, node.steps, 1);
            agree(node, &model);
        }
        sweep_some(node, usize::MAX, 3);
        agree(node, &model);
        // What is kept: the versions since the oldest revision that can be read, and one for each key that was there then.
        let oldest = usize::try_from(model.compacted).unwrap();
        let since: usize = model.updates[oldest..].iter().map(|update| update.events.len()).sum();
        assert_eq!(rows_of(node, Column::Revisions), since);
        assert_eq!(rows_of(node, Column::History), since + model.states[oldest].len());
    }
    let hash = |node: &Node| look(&*node.rows, |view| Ok(Meta::load(view)?.hash)).unwrap();
    assert!(nodes.windows(2).all(|pair| hash(&pair[0]) == hash(&pair[1])), "the hashes differ");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn in_memory_everything_is_as_the_model_says(commands in proptest::collection::vec(command(), 1..30), group in 1_usize..6) {
        let node = |group, steps| Node { rows: Arc::new(Memory::new()), group, steps };
        story(&[node(group, 0), node(1, 1), node(30, 2)], &commands);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn on_disk_everything_is_as_the_model_says(commands in proptest::collection::vec(command(), 20..60), group in 1_usize..6) {
        let directory = tempfile::tempdir().unwrap();
        let disk = Node { rows: Arc::new(Disk::open(directory.path()).unwrap()), group, steps: 1 };
        story(&[disk, Node { rows: Arc::new(Memory::new()), group: 7, steps: 0 }], &commands);
    }
}
