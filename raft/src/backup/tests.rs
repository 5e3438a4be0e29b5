use std::{fs, path::Path};

use proptest::prelude::*;
use quorate_proto::{
    ids::{NodeId, RequestId},
    key::Key,
    txn::{Command, Document, Txn},
};

use super::*;
use crate::{
    Memory,
    engine::{Engine as _, look},
    machine::{Applying, Cache},
    record::{self, Body, Entry, LogId},
};

const CLUSTER: ClusterId = ClusterId(7);

/// Reads it whole: objects in order and what they came to.
fn read(file: &[u8]) -> Result<(Vec<(Key, Document)>, Summary), BackupError> {
    let mut objects = Vec::new();
    let summary = Backup::open(file)?.objects(|key, versioned| objects.push((key, versioned.document)))?;
    Ok((objects, summary))
}

/// A small backup that needs no store.
fn small() -> Vec<u8> {
    let memory = Memory::new();
    let mut meta = Meta::default();
    for number in 1..=5 {
        let key = Key::new("", "configmaps", Some("default"), &number.to_string()).unwrap();
        let txn = Txn::new().put(key, Document(Bytes::from_static(b"{}")));
        let command = record::encode(&Command::Apply { request: RequestId(u128::from(number)), txn }).unwrap();
        let id = LogId { term: 1, node: NodeId(1), index: number };
        let applied = look(&memory, |view| {
            let cache = Cache::load(view, &meta)?;
            let mut applying = Applying::new(view, meta.clone()).with(&cache);
            applying.apply(&Entry { id, body: Body::Command(command.clone()) })?;
            applying.finish()
        });
        let applied = applied.unwrap();
        meta = applied.meta;
        memory.write(applied.batch).unwrap();
    }
    let mut file = Vec::new();
    let mut send = |piece: Bytes| {
        file.extend(piece);
        Ok(())
    };
    look(&memory, |view| write(view, CLUSTER, 0, &mut send)).unwrap();
    file
}

#[test]
fn what_is_wrong_with_a_file_is_told_apart() {
    let intact = small();
    assert_eq!(read(&intact).unwrap().1.objects, 5);
    let told = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    let changed = |at: usize, to: u8| {
        let mut changed = intact.clone();
        changed[at] = to;
        changed
    };
    let middle = intact.len() / 2;
    let longer = [intact.as_slice(), b"x"].concat();
    let said = [
        told(b""),
        told(b"{}"),
        told(&intact[..7]),
        told(&changed(15, 2)),
        told(&intact[..middle]),
        told(&changed(middle, !intact[middle])),
        told(&changed(16, 0xff)),
        told(&longer),
    ];
    let end = intact.len();
    assert_eq!(
        said,
        [
            "it is cut short: it ends after 0 bytes".to_owned(),
            "it is no backup: it does not begin with `quorate backup`".to_owned(),
            "it is cut short: it ends after 7 bytes".to_owned(),
            "it has format version 2, and this binary reads version 1".to_owned(),
            format!("it is cut short: it ends after {middle} bytes"),
            format!("it is damaged: the checksum of what ends at byte {} does not fit", end - SUM - BLOCK_HEADER),
            "it is damaged: the checksum of what ends at byte 24 does not fit".to_owned(),
            format!("it goes on behind its end, which is at byte {end}"),
        ]
    );
}

#[test]
fn blocks_that_were_left_out_or_exchanged_are_noticed_although_each_is_whole() {
    let intact = small();
    let (begin, end) = (MAGIC.len() + 1, intact.len() - SUM - BLOCK_HEADER);
    let without = [&intact[..begin], &intact[end..]].concat();
    let twice = [&intact[..end], &intact[begin..]].concat();
    for file in [without, twice] {
        assert!(matches!(read(&file), Err(BackupError::Damaged(_) | BackupError::Malformed(_))));
    }
}

/// Gives out a file by and by, and remembers how much was asked for at once.
struct Counting<'a>(&'a [u8], usize);

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1.max(buffer.len());
        self.0.read(buffer)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_file_that_is_not_what_was_written_is_refused_whatever_was_done_to_it(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4)
    ) {
        let intact = small();
        let mut file = intact.clone();
        for (at, byte, edit) in edits {
            let at = at.index(file.len().max(1)).min(file.len());
            match edit {
                0 if at < file.len() => file[at] = byte,
                1 => file.insert(at, byte),
                2 => file.truncate(at),
                _ if at < file.len() => { file.remove(at); }
                _ => {}
            }
        }
        let mut source = Counting(&file, 0);
        let result = Backup::open(&mut source).and_then(|backup| backup.objects(|_, _| {}));
        prop_assert_eq!(result.is_ok(), file == intact);
        prop_assert!(source.1 <= BLOCK, "{} bytes were taken at once", source.1);
    }

    #[test]
    fn what_no_backup_writes_behind_checksums_that_fit_is_refused_without_a_panic(
        content in prop::collection::vec(any::<u8>(), 0..600),
        header in any::<bool>(),
    ) {
        let mut file = Vec::new();
        let mut send = |piece: Bytes| { file.extend(piece); Ok(()) };
        let mut sending = Sending { send: &mut send, digest: Context::new(&SHA256) };
        sending.send([MAGIC.as_slice(), &[VERSION]].concat().into()).unwrap();
        let mut block = Vec::new();
        if header {
            let origin = Origin { cluster: CLUSTER, revision: Revision(0), hash: 0, taken: 0, build: String::new() };
            let meta = Meta::default().rows().unwrap();
            let header = record::encode(&Header::V1(origin, meta)).unwrap();
            block.extend((header.len() as u32).to_be_bytes());
            block.extend_from_slice(&header);
        }
        block.extend(content);
        if !block.is_empty() {
            sending.push(block.into()).unwrap();
        }
        sending.send(Bytes::from_static(&[0; BLOCK_HEADER])).unwrap();
        let sum = Bytes::copy_from_slice(sending.digest.clone().finish().as_ref());
        sending.send(sum).unwrap();
        prop_assert!(matches!(read(&file), Err(BackupError::Malformed(_))));
    }
}

#[test]
fn a_backup_of_the_first_release_is_read_and_restored() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/0.1/backup");
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        fs::write(&path, small()).unwrap();
    }
    let golden = fs::read(path).unwrap();
    let (objects, summary) = read(&golden).unwrap();
    assert_eq!((objects.len(), summary.origin.revision, summary.origin.cluster), (5, Revision(5), CLUSTER));
    let directory = tempfile::tempdir().unwrap();
    restore(Backup::open(golden.as_slice()).unwrap(), directory.path(), ClusterId(8), NodeId(9)).unwrap();
}
