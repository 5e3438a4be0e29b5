//! `quorate check`: says of manifests what is done with each of their fields, and what is wrong with them, without a cluster.
//!
//! Invariant: what is refused here is what a cluster of this version refuses for the same reason; what a cluster alone can know (whether a
//! name is taken, whether a namespace exists) is not asked.

use std::io::Read;

use quorate_node::check;
use quorate_proto::{
    manifest::Surveyed,
    refusal::{Reason, Refusal},
};

use crate::{args::Check, failure::Failure, manifests, output::Console};

pub(crate) fn run(arguments: &Check, stdin: &mut dyn Read, console: &mut Console<'_>) -> Result<(), Failure> {
    let objects = manifests::survey(&arguments.filename, stdin)?;
    let mut refused = 0;
    for object in &objects {
        let told = told(object, arguments.all);
        refused += usize::from(told.refused > 0);
        console.out.write_all(told.text.as_bytes())?;
    }
    match refused {
        0 => Ok(()),
        _ => {
            let what = format!("{refused} of {} objects would not be applied", objects.len());
            Err(Refusal::new(Reason::Invalid, what, "each line that says refused is a reason").into())
        }
    }
}

/// What is told of an object.
struct Told {
    text: String,
    refused: usize,
}

/// A line for the object, one for each field there is something to say of, and a sum.
fn told(object: &Surveyed, all: bool) -> Told {
    let survey = &object.survey;
    let mut lines: Vec<(u64, String)> = Vec::new();
    let mut line = |path, label: &str, message: &str| {
        let place = object.locate(path);
        lines.push((place.line, format!("  {place}: {label}: {message}")));
    };
    for path in survey.honoured.iter().filter(|_| all) {
        line(path, "honoured", &format!("`{path}`"));
    }
    for warning in &survey.warnings {
        line(&warning.path, "warned", &warning.message);
    }
    for problem in &survey.problems {
        line(&problem.path, "refused", &with_hint(&problem.message, problem.hint.as_deref()));
    }
    lines.sort_by_key(|(line, _)| *line);
    // Whether fields make sense together is asked when there are no others.
    let senseless = match &object.object {
        Some(whole) if survey.problems.is_empty() => check::problems(whole),
        _ => Vec::new(),
    };
    let name = object.name.as_deref().unwrap_or("no object");
    let mut text = format!("{}: {name}\n", object.origin);
    for (_, line) in &lines {
        text.push_str(line);
        text.push('\n');
    }
    for problem in &senseless {
        let message = with_hint(&problem.message, problem.hint.as_deref());
        text.push_str(&format!("  {}: refused: {message}\n", object.origin));
    }
    let refused = survey.problems.len() + senseless.len();
    let fields = if survey.honoured.len() == 1 { "field" } else { "fields" };
    text.push_str(&format!(
        "  {} {fields} honoured, {} warned about, {refused} refused\n",
        survey.honoured.len(),
        survey.warnings.len()
    ));
    Told { text, refused }
}

fn with_hint(message: &str, hint: Option<&str>) -> String {
    hint.map_or_else(|| message.to_owned(), |hint| format!("{message} ({hint})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: web
    image: web
    ports:
    - {containerPort: 80, hostPort: 80}
  terminationGracePeriodSeconds: 5
";

    fn checked(manifest: &str, all: bool) -> (String, u8) {
        let arguments = Check { filename: vec!["-".into()], all };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = run(&arguments, &mut manifest.as_bytes(), &mut Console { out: &mut out, err: &mut err });
        let (said, code) = match result {
            Ok(()) => (String::new(), 0),
            Err(failure) => (format!("{failure}\n"), failure.exit_code()),
        };
        (String::from_utf8([out, err, said.into_bytes()].concat()).unwrap(), code)
    }

    #[test]
    fn what_is_refused_is_told_with_its_line_and_the_exit_code() {
        let (told, code) = checked(POD, false);
        insta::assert_snapshot!(told);
        assert_eq!(code, 1);
    }

    #[test]
    fn every_field_is_told_of_when_asked_for() {
        let (told, code) = checked(&POD.replace(", hostPort: 80", ""), true);
        insta::assert_snapshot!(told);
        assert_eq!(code, 0);
    }

    #[test]
    fn what_only_does_not_go_together_is_refused_as_a_cluster_refuses_it() {
        let deployment = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web, image: web}]}
";
        let (told, code) = checked(deployment, false);
        insta::assert_snapshot!(told);
        assert_eq!(code, 1);
    }

    #[test]
    fn what_is_no_object_or_no_yaml_is_told_too() {
        let (told, code) =
            checked("kind: Pod\n---\napiVersion: example.org/v1\nkind: Shop\nmetadata: {name: a}\n", false);
        insta::assert_snapshot!(told);
        assert_eq!(code, 1);
        assert_eq!(checked("a: b: c\n", false).1, 1);
    }
}
