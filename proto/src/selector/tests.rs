//! Selectors as users write them, and what they select.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kinds::{NODES, PODS};

fn object(labels: &Value) -> Object {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": labels}, "spec": {"nodeName": "n1", "hostNetwork": true}});
    Object::from_value(pod).unwrap()
}

fn selects(text: &str, labels: &Value) -> bool {
    Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).selects(&object(labels))
}

#[test]
fn labels_are_selected_as_in_kubernetes() {
    let web = || json!({"app": "web", "tier": "a", "example.com/size": "12", "empty": ""});
    for text in [
        "",
        " ",
        "app=web",
        "app==web",
        " app = web , tier in ( b , a ) ",
        "app!=db",
        "absent!=db",
        "absent notin (x)",
        "app notin (db,cache)",
        "app",
        "!absent",
        "empty=",
        "empty in ()",
        "empty in (x,)",
        "example.com/size>11",
        "example.com/size<13,app=web",
    ] {
        assert!(selects(text, &web()), "{text}");
    }
    for text in [
        "app=db",
        "app!=web",
        "absent",
        "!app",
        "absent=",
        "tier in (b,c)",
        "tier notin (a)",
        "example.com/size>12",
        "app>1",
    ] {
        assert!(!selects(text, &web()), "{text}");
    }
}

#[test]
fn a_selector_that_is_none_is_refused_at_the_place_of_the_mistake() {
    for (text, message) in [
        ("app=web,", "at character 9 of `app=web,`: expected a label name or `!`, found the end"),
        ("app=web tier=a", "at character 9 of `app=web tier=a`: expected `,` or the end, found `t`"),
        (
            "äpp web",
            "at character 5 of `äpp web`: expected `=`, `==`, `!=`, `>`, `<`, `in`, `notin`, `,` or the end, found `w`",
        ),
        ("tier in a", "at character 9 of `tier in a`: expected `(`, found `a`"),
        ("tier in (a", "at character 11 of `tier in (a`: expected `,` or `)`, found the end"),
        ("=web", "at character 1 of `=web`: expected a label name or `!`, found `=`"),
        ("!", "at character 2 of `!`: expected a label name, found the end"),
        ("app>many", "`many` cannot be compared with the label `app`: it is no whole number"),
    ] {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), message);
    }
    assert_eq!(Selector::parse("-x=1"), Err(SelectorError::Label("-x".into())));
    assert_eq!(Selector::parse("a/b/c"), Err(SelectorError::Label("a/b/c".into())));
    assert_eq!(Selector::parse("a=b-"), Err(SelectorError::Value { label: "a".into(), value: "b-".into() }));
    assert_eq!(Selector::parse(&"a".repeat(MAX_LENGTH + 1)), Err(SelectorError::Length(MAX_LENGTH + 1)));
}

#[test]
fn a_label_selector_joins_labels_and_expressions() {
    let selector = |value: Value| Selector::of_label_selector(&serde_json::from_value(value).unwrap());
    let both = selector(json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }))
    .unwrap();
    assert_eq!(both.to_string(), "app=web,tier in (a,b),!old");
    assert!(both.selects(&object(&json!({"app": "web", "tier": "b"}))));
    assert!(!both.selects(&object(&json!({"app": "web", "tier": "b", "old": "1"}))));
    assert!(selector(json!({})).unwrap().is_empty());
    let expression = |operator: &str, values: Value| {
        selector(json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(expression("In", json!([])), "In on the label `a` takes at least one value");
    assert_eq!(expression("Exists", json!(["x"])), "Exists on the label `a` takes no values");
    assert_eq!(expression("Gt", json!(["1"])), "`Gt` is no operator: use In, NotIn, Exists or DoesNotExist");
}

#[test]
fn fields_are_selected_as_in_kubernetes() {
    let selects = |text: &str| FieldSelector::parse(text).unwrap().selects(&object(&json!({})));
    for text in
        ["", "metadata.name=web-1", "metadata.name==web-1,spec.nodeName!=n2", "status.phase=", "spec.hostNetwork=true,"]
    {
        assert!(selects(text), "{text}");
    }
    for text in ["metadata.name=web", "spec.nodeName!=n1", "spec.nodeName=", r"metadata.name=web-1\,x"] {
        assert!(!selects(text), "{text}");
    }
    let unscheduled = FieldSelector::parse("spec.nodeName=").unwrap();
    assert_eq!(unscheduled.check(&PODS), Ok(()));
    assert_eq!(
        unscheduled.check(&NODES).unwrap_err().to_string(),
        "nodes cannot be selected by `spec.nodeName`: use one of metadata.name, spec.unschedulable"
    );
    for (text, message) in [
        ("metadata.name", "at character 14 of `metadata.name`: expected `=`, `==` or `!=`, found the end"),
        (r"a=\x", r"at character 4 of `a=\x`: expected `,`, `=` or `\` behind `\`, found `x`"),
        ("a=b=c", r"at character 4 of `a=b=c`: expected a value; write `\=` for `=`, found `=`"),
        (",a=b", "at character 1 of `,a=b`: expected a field such as `metadata.name`, found `,`"),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), message);
    }
}

proptest! {
    #[test]
    fn a_selector_reads_as_it_is_written(text in "(!?[a-z]{1,3}|[a-z]{1,3}(=|!=)[a-z]{0,3}|[a-z]{1,3} (in|notin) \\([a-z]{0,2}(,[a-z]{0,2}){0,3}\\))(,[a-z]{1,2}[<>][0-9]{1,3}){0,2}") {
        let selector = Selector::parse(&text).unwrap();
        prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn no_text_makes_the_parsers_fail_otherwise_than_with_an_error(text in "[a-z=!,()<> \\\\.äß]{0,40}") {
        let _ = (Selector::parse(&text), FieldSelector::parse(&text));
    }
}
