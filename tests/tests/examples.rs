//! The manifests that users are shown can be applied as they stand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use quorate_proto::manifest;

fn manifests(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            manifests(&path, found);
        } else if matches!(ending, Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_accepted_and_nothing_in_it_is_only_stored() {
    let mut found = Vec::new();
    manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"), &mut found);
    found.sort();
    assert!(!found.is_empty(), "there are no examples");
    for path in found {
        let file = path.display().to_string();
        let objects = manifest::read(&fs::read_to_string(&path).unwrap(), &file)
            .unwrap_or_else(|error| panic!("{}", error.refusal("applied")));
        assert!(!objects.is_empty(), "{file} holds no objects");
        for object in objects {
            assert_eq!(object.warnings, [], "{file}");
        }
    }
}
