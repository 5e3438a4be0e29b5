use std::{fs, os::unix::fs::MetadataExt as _};

use super::*;
use crate::{client::tests::Recorded, session::tests::run as run_in};

/// A backup as the first release wrote it.
fn golden() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/0.1/backup")).unwrap()
}

/// The answers of a node: the backup in pieces, then its end.
fn answers(file: &[u8]) -> Vec<Answer> {
    let pieces = file.chunks(100).map(|piece| Answer::Data(Bytes::copy_from_slice(piece)));
    pieces.chain([Answer::End]).collect()
}

async fn save(answers: Vec<Answer>, file: &Path, force: bool) -> String {
    let verb = Backup::Save { file: file.to_owned(), force, stale: false };
    let printed = run_in(&Recorded::new([Ok(answers)]), async |session| run(session, verb).await).await;
    printed.replace(&file.parent().unwrap().display().to_string(), "/backups")
}

fn offline_printed(verb: &Backup) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console { out: &mut out, err: &mut err };
    let result = match verb {
        Backup::Inspect { file } => inspect(file, &mut console),
        _ => panic!("another verb"),
    };
    let mut printed = String::from_utf8([out, err].concat()).unwrap();
    if let Err(failure) = result {
        printed.push_str(&format!("{failure}\n[exit code {}]\n", failure.exit_code()));
    }
    printed
}

#[tokio::test]
async fn a_backup_is_saved_whole_for_its_owner_alone_and_never_by_accident_over_another() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.backup");
    let first = save(answers(&golden()), &file, false).await;
    assert_eq!(fs::read(&file).unwrap(), golden());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    fs::write(&file, b"mine").unwrap();
    let refused = save(Vec::new(), &file, false).await;
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    save(answers(&golden()), &file, true).await;
    assert_eq!(fs::read(&file).unwrap(), golden());
    let inspected = offline_printed(&Backup::Inspect { file: file.clone() });
    insta::assert_snapshot!([first, refused, inspected].join("\n"));
}

#[tokio::test]
async fn what_does_not_arrive_whole_leaves_nothing_under_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.backup");
    let whole = golden();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut early = answers(&whole[..whole.len() / 2]);
    early.pop();
    let no_quorum = Refusal::new(Reason::Unavailable, NOT_SAVED, "no quorum: the newest state cannot be confirmed");
    let said = [
        save(answers(&flipped), &file, false).await,
        save(answers(&whole[..whole.len() / 2]), &file, false).await,
        save(early, &file, false).await,
        save(vec![Answer::Refused(no_quorum)], &file, false).await,
        save(answers(&whole), &directory.path().join("nowhere").join("backup"), false).await,
    ];
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn a_backup_to_standard_output_is_nothing_but_its_bytes() {
    let recorded = Recorded::new([Ok(answers(&golden()))]);
    let verb = Backup::Save { file: PathBuf::from("-"), force: false, stale: true };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut session = Session {
        client: recorded.client(),
        named_namespace: None,
        default_namespace: "default".to_owned(),
        clock: Arc::new(SystemClock::start()),
        console: Console { out: &mut out, err: &mut err },
    };
    run(&mut session, verb).await.unwrap();
    assert_eq!(out, golden());
    assert!(String::from_utf8(err).unwrap().contains("Objects:    5"));
    assert_eq!(recorded.requests(), [Request::Backup { read: Read::Stale }]);
}

#[test]
fn what_is_no_backup_is_told_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    fs::write(&file, "kind: Pod\n").unwrap();
    let said = [file, directory.path().join("nothing")].map(|file| offline_printed(&Backup::Inspect { file }));
    let said = said.join("\n").replace(&directory.path().display().to_string(), "/backups");
    insta::assert_snapshot!(said);
}
