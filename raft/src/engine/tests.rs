//! One suite for both engines.

use std::sync::Arc;

use super::*;

fn each_engine(story: impl Fn(&dyn Engine)) {
    let directory = tempfile::tempdir().unwrap();
    story(&Memory::new());
    story(&Disk::open(directory.path()).unwrap());
}

fn put(column: Column, key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(column, key.as_bytes().to_vec(), Bytes::copy_from_slice(value.as_bytes()));
    batch
}

fn all(view: &dyn View, column: Column, from: &str, to: Option<&str>) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    view.scan(column, from.as_bytes(), to.map(str::as_bytes), &mut |key, value| {
        found.push((text(key), text(value)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn keys(engine: &dyn Engine, column: Column) -> Vec<String> {
    let rows = look(engine, |view| all(view, column, "", None)).unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_scan_is_in_order_and_keeps_to_its_bounds_and_its_column() {
    each_engine(|engine| {
        for key in ["b", "a", "d", "c"] {
            engine.write(put(Column::Current, key, key)).unwrap();
        }
        engine.write(put(Column::History, "b", "other")).unwrap();
        let found = look(engine, |view| all(view, Column::Current, "b", Some("d"))).unwrap();
        assert_eq!(found, [("b".to_owned(), "b".to_owned()), ("c".to_owned(), "c".to_owned())]);
    });
}

#[test]
fn the_changes_of_a_batch_take_effect_in_their_order() {
    each_engine(|engine| {
        let mut batch = Batch::default();
        for key in ["a", "b", "c"] {
            batch.put(Column::RaftLog, key.into(), Bytes::new());
        }
        batch.delete_range(Column::RaftLog, "b".into(), "z".into());
        batch.put(Column::RaftLog, "c".into(), Bytes::new());
        batch.delete(Column::RaftLog, "a".into());
        engine.write(batch).unwrap();
        assert_eq!(keys(engine, Column::RaftLog), ["c"]);
    });
}

#[test]
fn a_view_does_not_see_what_is_written_after_it_began() {
    each_engine(|engine| {
        engine.write(put(Column::Current, "a", "1")).unwrap();
        let found = look(engine, |view| {
            engine.write(put(Column::Current, "b", "1"))?;
            all(view, Column::Current, "", None)
        });
        assert_eq!(found.unwrap().len(), 1);
    });
}

#[test]
fn a_replaced_state_is_the_new_one_alone_and_leaves_the_log() {
    each_engine(|engine| {
        engine.write(put(Column::Current, "old", "1")).unwrap();
        engine.write(put(Column::RaftLog, "entry", "1")).unwrap();
        for round in ["one", "two"] {
            let row = Row { column: Column::Current, key: round.into(), value: Bytes::new() };
            engine.replace(&mut std::iter::once(Ok(row)), put(Column::StateMeta, "applied", round)).unwrap();
            assert_eq!(keys(engine, Column::Current), [round]);
        }
        assert_eq!(keys(engine, Column::RaftLog), ["entry"]);
    });
}

#[test]
fn a_replacement_that_breaks_off_leaves_the_old_state() {
    each_engine(|engine| {
        engine.write(put(Column::Current, "old", "1")).unwrap();
        let row = Row { column: Column::Current, key: "new".into(), value: Bytes::new() };
        let broken = || [Ok(row.clone()), Err(io::Error::other("torn"))].into_iter();
        for _ in 0..2 {
            assert!(engine.replace(&mut broken(), put(Column::StateMeta, "applied", "1")).is_err());
        }
        assert_eq!(keys(engine, Column::Current), ["old"]);
        engine.replace(&mut std::iter::once(Ok(row.clone())), Batch::default()).unwrap();
        assert_eq!(keys(engine, Column::Current), ["new"]);
    });
}

#[test]
fn a_state_that_was_replaced_is_there_after_a_restart_and_the_rest_is_collected() {
    let directory = tempfile::tempdir().unwrap();
    let row = |key: &str| Row { column: Column::Current, key: key.into(), value: Bytes::new() };
    let disk = Disk::open(directory.path()).unwrap();
    disk.write(put(Column::Current, "old", "1")).unwrap();
    disk.replace(&mut std::iter::once(Ok(row("new"))), put(Column::StateMeta, "applied", "1")).unwrap();
    assert!(disk.replace(&mut [Ok(row("half")), Err(io::Error::other("torn"))].into_iter(), Batch::default()).is_err());
    disk.close();
    assert!(disk.closed());
    assert!(disk.sync().is_err(), "closed");
    let disk = Disk::open(directory.path()).unwrap();
    assert_eq!(keys(&disk, Column::Current), ["new"]);
    disk.close();
    let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), directory.path()).unwrap();
    assert_eq!(names.iter().filter(|name| name.starts_with("kv_cur")).collect::<Vec<_>>(), ["kv_cur@1"]);
}

#[test]
fn the_settings_that_durability_rests_on_are_the_ones_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(directory.path()).unwrap());
    let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    let newest = files.filter(|path| path.to_string_lossy().contains("OPTIONS-")).max().unwrap();
    let options = std::fs::read_to_string(newest).unwrap();
    for setting in [
        "wal_recovery_mode=kTolerateCorruptedTailRecords",
        "track_and_verify_wals_in_manifest=true",
        "recycle_log_file_num=0",
        "wal_bytes_per_sync=0",
        "manual_wal_flush=false",
        "paranoid_checks=true",
        "stats_dump_period_sec=0",
        "stats_persist_period_sec=0",
    ] {
        assert!(options.contains(setting), "{setting}");
    }
    drop(disk);
}
