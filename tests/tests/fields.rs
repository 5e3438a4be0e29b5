//! The page that tells users what is done with each field, written from the table that decides it.
//!
//! Invariant: the page and the table agree. `UPDATE=1` writes the page anew, and the diff is the review.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use quorate_proto::{
    kinds::Access,
    schema::{self, Field, Label},
};

const HEAD: &str = "\
# Fields

What Quorate does with each field of the kinds it serves. Written from `proto/src/schema/labels.txt` by `tests/tests/fields.rs`; do
not edit. Whoever applies a manifest is told the same, with file and line, before anything is sent to the cluster.

| label | |
|---|---|
| honoured | does what Kubernetes says it does |
| warned | is stored and does nothing; whoever writes it is told |
| refused | an object that has it is not accepted |
| server | is written by the cluster; what a user writes there is accepted and dropped |

Empty values (`null`, `\"\"`, `[]`, `{}`) always pass. A field that is not listed is not a field, and refused. Below a field that is
not honoured nothing more is listed. The template of a replica set, deployment, daemon set or job has the fields of a pod, that
of a cron job those of a job, an init container those of a container.
";

/// What has the fields of something else is listed once.
fn is_listed(field: &Field) -> bool {
    ["spec.template.", "spec.jobTemplate.", "spec.initContainers[]."].iter().all(|path| !field.path.starts_with(path))
}

fn told(field: &Field) -> String {
    let label = match field.label {
        Label::Honoured => return "honoured".to_owned(),
        Label::Server => return "server".to_owned(),
        Label::Warned => "**warned**",
        Label::Refused => "**refused**",
    };
    let mut text = label.to_owned();
    if !field.unless.is_empty() {
        let values: Vec<_> = field.unless.iter().map(|value| format!("`{value}`")).collect();
        write!(text, " unless {}", values.join(", ")).unwrap();
    }
    if let Some(other) = field.beside {
        write!(text, " or beside `{other}`").unwrap();
    }
    write!(text, ": {}", field.reason).unwrap();
    text
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for kind in schema::kinds() {
        let fields: Vec<_> = schema::fields(kind).into_iter().filter(is_listed).collect();
        write!(page, "\n## {} ({})\n\n", kind.kind, kind.api_version()).unwrap();
        if kind.access == Access::Observed {
            page.push_str("Users read it; the cluster writes it.\n\n");
        }
        page.push_str("| field | type | |\n|---|---|---|\n");
        for field in &fields {
            let required = if field.required { ", required" } else { "" };
            writeln!(page, "| `{}` | {}{required} | {} |", field.path, field.type_name, told(field)).unwrap();
        }
    }
    page
}

#[test]
fn the_page_about_fields_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating/fields.md");
    let page = page();
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let [written, page] = [&written, &page].map(|text| text.lines().collect::<BTreeSet<_>>());
    let changed: Vec<_> = written.symmetric_difference(&page).collect();
    assert!(changed.is_empty(), "docs/operating/fields.md is not what the table says; run with UPDATE=1: {changed:#?}");
}
