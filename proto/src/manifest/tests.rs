//! What a manifest is read as, and what a user is told about a bad one.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::*;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata:
      labels: { app: web }
    spec:
      containers:
        - name: web
          image: nginx
          imagePolicy: Always
";

fn config(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n{data}")
}

fn only(text: &str) -> Object {
    let mut objects = read(text, "x.yaml").unwrap();
    assert_eq!(objects.len(), 1);
    objects.remove(0).object
}

fn data(text: &str) -> Value {
    only(&config(text)).at(&["data"]).unwrap().clone()
}

/// Manifests that are refused, each with what it shows.
fn bad() -> Vec<(&'static str, String)> {
    // Each level holds the one before it nine times: the last would be 9^15 strings.
    let levels = ('a'..='o').map(|name| {
        let before = char::from_u32(u32::from(name) - 1).filter(|before| before.is_alphabetic());
        let item = before.map_or_else(|| "x".to_owned(), |before| format!("*{before}"));
        format!("{name}: &{name} [{}]\n", [item.as_str(); 9].join(","))
    });
    let bomb: String = levels.collect();
    vec![
        ("a misspelt field", DEPLOYMENT.to_owned()),
        ("fields of the wrong type", config("  debug: yes\n  port: 80\n  mode: 0644\n  empty:\n")),
        ("several objects", format!("{DEPLOYMENT}---\n{}", config("  a: 1\n"))),
        ("an anchor that would unfold into gigabytes", bomb),
        ("an alias without an anchor", "a: *b\n".to_owned()),
        ("a merge key", "<<: { a: 1 }\n".to_owned()),
        ("a key that stands there twice", config("  a: x\n  b: x\n  a: y\n")),
        ("a key that stands there twice, once as a number", config("  1: x\n  \"1\": y\n")),
        ("a tab for indentation", "metadata:\n\tname: web\n".to_owned()),
        ("a bracket that is not closed", "a: [b\n".to_owned()),
        ("a tag", config("  a: !secret x\n")),
        ("a number without an end", config("  a: .inf\n")),
        ("no object at all", "hello\n".to_owned()),
        ("a list without a kind", "- a\n- b\n".to_owned()),
        ("no apiVersion", "kind: Pod\nmetadata: { name: web }\n".to_owned()),
        ("no name", "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: web-\n".to_owned()),
        (
            "a kind that is not served",
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: { name: shop }\n".to_owned(),
        ),
        (
            "something a terminal would obey",
            "apiVersion: v1\nkind: \"\\e[31mPod\"\nmetadata: { name: web }\n".to_owned(),
        ),
        ("something in a list", format!("apiVersion: v1\nkind: List\nitems:\n- {}", DEPLOYMENT.replace('\n', "\n  "))),
        (
            "JSON",
            "{\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"c\"},\n\t\"dat\": {}}"
                .to_owned(),
        ),
        ("JSON with a key twice", "{\"apiVersion\": \"v1\", \"apiVersion\": \"v1\"}".to_owned()),
        ("JSON cut off", "{\"apiVersion\": \"v1\", \"kind\":".to_owned()),
        ("too deep", format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1))),
        ("too many documents", "---\na: b\n".repeat(MAX_DOCUMENTS + 1)),
        ("too many values", format!("a: [{}]\n", "1,".repeat(MAX_VALUES + 1))),
        (
            "too many objects",
            format!(
                "apiVersion: v1\nkind: List\nitems:\n{}",
                "- { apiVersion: v1, kind: Namespace, metadata: { name: a } }\n".repeat(MAX_DOCUMENTS + 1)
            ),
        ),
        ("too many bytes", " ".repeat(MAX_BYTES + 1)),
    ]
}

#[test]
fn a_bad_manifest_is_refused_with_its_line_and_what_to_do() {
    let mut told = String::new();
    for (title, text) in bad() {
        let refusal = read(&text, "web.yaml").expect_err(title).refusal("applied");
        write!(told, "# {title}\n{refusal}\n\n").unwrap();
    }
    insta::assert_snapshot!(told);
}

#[test]
fn the_example_of_the_documentation_is_told_as_documented() {
    let error = read(DEPLOYMENT, "web.yaml").unwrap_err();
    assert_eq!(
        error.refusal("applied").to_string(),
        "error: deployment.apps/web was not applied\n  \
         because: web.yaml:14: `spec.template.spec.containers[0].imagePolicy` is not a field of Container\n  \
         hint: did you mean `imagePullPolicy`?"
    );
}

#[test]
fn documents_are_read_in_order_with_their_lines_and_empty_ones_are_skipped() {
    let text = format!(
        "---\n# nothing\n---\n{}---\n---\n{}",
        config("  a: x\n"),
        config("  b: z\n").replace("settings", "more")
    );
    let objects = read(&text, "all.yaml").unwrap();
    let found: Vec<_> = objects.iter().map(|found| (found.object.name(), found.origin.to_string())).collect();
    assert_eq!(found, [("settings", "all.yaml:4".to_owned()), ("more", "all.yaml:12".to_owned())]);
    assert!(read("", "empty.yaml").unwrap().is_empty());
    assert!(read("# only a comment\n", "empty.yaml").unwrap().is_empty());
}

#[test]
fn lists_are_taken_apart_also_inside_each_other() {
    let item = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let inner = json!({"apiVersion": "v1", "kind": "List", "items": [item("b"), item("c")]});
    let text = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [item("a"), inner]}).to_string();
    let objects = read(&text, "list.json").unwrap();
    assert_eq!(objects.iter().map(|found| found.object.name()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_config_map_with_a_key_called_items_is_no_list() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { items: x, kind: List }\n";
    assert_eq!(only(text).at(&["data"]), Some(&json!({"items": "x", "kind": "List"})));
}

#[test]
fn every_field_has_a_line_and_one_that_is_missing_that_of_where_it_belongs() {
    let text = DEPLOYMENT.replace("imagePolicy", "imagePullPolicy");
    let object = &read(&text, "web.yaml").unwrap()[0];
    let field = |name: &str| Step::Field(name.to_owned());
    let mut path = ["spec", "template", "spec", "containers"].map(field).to_vec();
    assert_eq!(object.line(&Path(path.clone())), 11);
    path.push(Step::Index(0));
    assert_eq!(object.line(&Path(path.clone())), 12);
    path.push(field("image"));
    assert_eq!(object.locate(&Path(path.clone())).to_string(), "web.yaml:13");
    path.pop();
    path.push(field("ports"));
    assert_eq!(object.line(&Path(path)), 12);
    let selector = vec![field("spec"), field("selector"), field("matchLabels"), Step::Key("app".to_owned())];
    assert_eq!(object.line(&Path(selector)), 6);
}

#[test]
fn numbers_of_a_file_mode_are_octal_as_in_kubernetes() {
    let pod = only(
        "apiVersion: v1\nkind: Pod\nmetadata: { name: p }\nspec:\n  containers: [{ name: c }]\n  volumes:\n  \
         - { name: a, secret: { secretName: s, defaultMode: 0400 } }\n  - { name: b, configMap: { name: m, defaultMode: 0o644 } }\n  \
         - { name: c, configMap: { name: m, defaultMode: 420 } }\n",
    );
    let modes: Vec<_> = pod.at(&["spec", "volumes"]).unwrap().as_array().unwrap().iter().collect();
    assert_eq!(modes[0]["secret"]["defaultMode"], 256);
    assert_eq!(modes[1]["configMap"]["defaultMode"], 420);
    assert_eq!(modes[2]["configMap"]["defaultMode"], 420);
}

#[test]
fn what_stands_in_quotes_is_text_whatever_it_looks_like() {
    let text =
        "  a: \"yes\"\n  b: 'on'\n  c: \"0644\"\n  d: \"null\"\n  e: '1e3'\n  g: \"\"\n  h: 1.2.3\n  i: 12:30:45\n";
    assert_eq!(
        data(text),
        json!({"a": "yes", "b": "on", "c": "0644", "d": "null", "e": "1e3", "g": "", "h": "1.2.3", "i": "12:30:45"})
    );
}

#[test]
fn yes_and_on_without_quotes_are_true_as_in_kubernetes() {
    let pod = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: p }}\nspec:\n  hostNetwork: {word}\n  containers: [{{ name: c }}]\n"
        )
    };
    for (word, value) in [("yes", true), ("on", true), ("True", true), ("no", false), ("off", false)] {
        assert_eq!(only(&pod(word)).at(&["spec", "hostNetwork"]), Some(&json!(value)), "{word}");
    }
}

#[test]
fn text_arrives_as_it_was_written() {
    assert_eq!(data("  größe: \"日本語 🦀 \\u00e9\"\n"), json!({"größe": "日本語 🦀 é"}));
    assert_eq!(data("  a: |\n    one\n      two\n\n    three\n"), json!({"a": "one\n  two\n\nthree\n"}));
    assert_eq!(data("  a: >-\n    one\n    two\n"), json!({"a": "one two"}));
    assert_eq!(data("  a: \"tab\\there\"\n"), json!({"a": "tab\there"}));
    let json_text =
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "\ud83e\udd80\/\n"}}"#;
    assert_eq!(only(json_text).at(&["data", "a"]), Some(&json!("🦀/\n")));
}

#[test]
fn line_ends_of_other_systems_and_a_byte_order_mark_change_nothing() {
    let text = format!("\u{feff}{}", config("  a: |\n    x\n    y\n").replace('\n', "\r\n"));
    assert_eq!(only(&text).at(&["data", "a"]), Some(&json!("x\ny\n")));
    let bad = DEPLOYMENT.replace('\n', "\r\n");
    assert!(read(&bad, "web.yaml").unwrap_err().to_string().starts_with("web.yaml:14: "));
}

#[test]
fn one_huge_line_is_read() {
    let line = "x".repeat(1 << 20);
    assert_eq!(data(&format!("  a: {line}\n")), json!({"a": line}));
}

#[test]
fn what_is_stored_and_does_nothing_comes_with_its_line() {
    let text = format!("{}immutable: true\n", config("  a: x\n"));
    let object = &read(&text, "c.yaml").unwrap()[0];
    let told: Vec<_> = object
        .warnings
        .iter()
        .map(|warning| format!("{}: {}", object.locate(&warning.path), warning.message))
        .collect();
    assert_eq!(told, ["c.yaml:7: `immutable: true` is stored but not honoured: it can still be changed"]);
}

#[test]
fn an_object_is_what_its_text_says_whichever_way_it_is_written() {
    let yaml = only(&DEPLOYMENT.replace("          imagePolicy: Always\n", ""));
    assert_eq!(only(&yaml.to_string()), yaml);
    assert_eq!(only(&serde_json::to_string_pretty(yaml.as_map()).unwrap()), yaml);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z0-9 :\\-\n\\[\\]{}&*!|>'\"#%@,?<~\t\\\\]{0,200}") {
        let _ = read(&text, "x.yaml").map_err(|error| error.refusal("applied").to_string());
    }
}
