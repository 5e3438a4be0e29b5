//! Which nodes a pod may run on by its selector and its required affinity, and how a pod is pinned to one node. Scheduler and daemon
//! sets judge by the same rules.
//!
//! Invariant: what cannot be read is an error with its reason; it is never taken for "any node".

use quorate_proto::{
    k8s::api::core::v1::{NodeSelector, NodeSelectorRequirement},
    object::Object,
    selector::{Requirement, Selector},
};
use serde_json::{Value, json};

use crate::edit::{items, view};

/// Where required node affinity stands in a pod.
const REQUIRED: [&str; 4] = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];

/// The one field of nodes that affinity can name.
const NAME: &str = "metadata.name";

/// What a pod asks of the labels and the name of its node.
#[derive(Debug)]
pub(crate) struct Affinity {
    selector: Selector,
    /// One of the terms must hold, if there are any.
    terms: Option<Vec<Term>>,
}

/// Requirements that hold together; one without any holds for no node, as in Kubernetes.
#[derive(Debug)]
struct Term {
    labels: Vec<Requirement>,
    names: Vec<NameRequirement>,
}

/// Names that are meant, or all but these.
#[derive(Debug)]
struct NameRequirement {
    among: bool,
    names: Vec<String>,
}

impl Affinity {
    /// Reads a pod.
    ///
    /// # Errors
    /// In words, if its affinity cannot be read.
    pub(crate) fn of(pod: &Object) -> Result<Self, String> {
        let selector = Selector::of_labels(pod.strings(&["spec", "nodeSelector"]));
        if pod.at(&REQUIRED).is_none_or(Value::is_null) {
            return Ok(Self { selector, terms: None });
        }
        let required: NodeSelector =
            view(pod, &REQUIRED).map_err(|error| format!("its node affinity cannot be read: {error}"))?;
        let terms = required.node_selector_terms.into_iter().map(|term| {
            let labels = term.match_expressions.into_iter().flatten().map(label_requirement);
            let names = term.match_fields.into_iter().flatten().map(name_requirement);
            Ok(Term { labels: labels.collect::<Result<_, String>>()?, names: names.collect::<Result<_, String>>()? })
        });
        Ok(Self { selector, terms: Some(terms.collect::<Result<_, String>>()?) })
    }

    /// Whether a node has the labels of `nodeSelector`.
    pub(crate) fn selects(&self, node: &Object) -> bool {
        self.selector.selects(node)
    }

    /// Whether required affinity allows a node.
    pub(crate) fn allows(&self, node: &Object) -> bool {
        self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.holds(node)))
    }
}

fn label_requirement(wish: NodeSelectorRequirement) -> Result<Requirement, String> {
    Requirement::new(&wish.key, &wish.operator, &wish.values.unwrap_or_default())
        .map_err(|error| format!("its node affinity is refused: {error}"))
}

fn name_requirement(wish: NodeSelectorRequirement) -> Result<NameRequirement, String> {
    let refuse = |why: String| Err(format!("its node affinity is refused: {why}"));
    if wish.key != NAME {
        return refuse(format!("a node has no field `{}` to be selected by", wish.key));
    }
    let among = match wish.operator.as_str() {
        "In" => true,
        "NotIn" => false,
        other => return refuse(format!("`{NAME}` takes In or NotIn, not `{other}`")),
    };
    Ok(NameRequirement { among, names: wish.values.unwrap_or_default() })
}

impl Term {
    fn holds(&self, node: &Object) -> bool {
        let named = |wish: &NameRequirement| wish.names.iter().any(|name| name == node.name()) == wish.among;
        !(self.labels.is_empty() && self.names.is_empty())
            && self.labels.iter().all(|wish| wish.holds(node.label(wish.label())))
            && self.names.iter().all(named)
    }
}

/// Pins a pod to a node, in the place of what affinity it required before (`ReplaceDaemonSetPodNodeNameNodeAffinity` in Kubernetes).
pub(crate) fn pin(pod: &mut Object, node: &str) {
    let term = json!({"matchFields": [{"key": NAME, "operator": "In", "values": [node]}]});
    pod.set(&REQUIRED, json!({"nodeSelectorTerms": [term]}));
}

/// The node a pod is pinned to.
pub(crate) fn pinned_to(pod: &Object) -> Option<&str> {
    let path: Vec<&str> = REQUIRED.into_iter().chain(["nodeSelectorTerms"]).collect();
    let [term] = items(pod, &path) else { return None };
    let [field] = term.get("matchFields")?.as_array()?.as_slice() else { return None };
    let is = |name: &str, text: &str| field.get(name).and_then(Value::as_str) == Some(text);
    match field.get("values")?.as_array()?.as_slice() {
        [name] if is("key", NAME) && is("operator", "In") => name.as_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{node, pod};

    fn affine(terms: &Value) -> Result<Affinity, String> {
        let mut pod = Object::from_value(pod("a")).unwrap();
        pod.set(&REQUIRED, json!({ "nodeSelectorTerms": terms }));
        Affinity::of(&pod)
    }

    #[test]
    fn required_affinity_allows_what_it_allows_in_kubernetes() {
        let mut labelled = node("n1");
        labelled["metadata"]["labels"] = json!({"zone": "a", "disks": "4"});
        let labelled = Object::from_value(labelled).unwrap();
        let wish =
            |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let labels = |wishes: &[Value]| json!([{ "matchExpressions": wishes }]);
        let names = |operator: &str, names: &[&str]| json!([{"matchFields": [wish(NAME, operator, names)]}]);
        for (terms, allowed) in [
            (labels(&[wish("zone", "In", &["a", "b"])]), true),
            (labels(&[wish("zone", "NotIn", &["a"])]), false),
            (labels(&[wish("rack", "NotIn", &["a"])]), true),
            (labels(&[wish("zone", "Exists", &[])]), true),
            (labels(&[wish("zone", "DoesNotExist", &[])]), false),
            (labels(&[wish("disks", "Gt", &["3"])]), true),
            (labels(&[wish("disks", "Lt", &["4"])]), false),
            (labels(&[wish("zone", "Gt", &["3"])]), false),
            (labels(&[wish("zone", "In", &["a"]), wish("disks", "Lt", &["4"])]), false),
            (names("In", &["n1", "n2"]), true),
            (names("In", &["n2"]), false),
            (names("NotIn", &["n1"]), false),
            (names("In", &[&"n".repeat(200)]), false),
            (json!([{}]), false),
            (json!([{}, {"matchFields": [wish(NAME, "In", &["n1"])]}]), true),
        ] {
            assert_eq!(affine(&terms).unwrap().allows(&labelled), allowed, "{terms}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_wish_for_any_node() {
        let refused = |terms: Value| affine(&terms).unwrap_err();
        assert_eq!(
            refused(json!([{"matchFields": [{"key": "spec.podCIDR", "operator": "In", "values": ["x"]}]}])),
            "its node affinity is refused: a node has no field `spec.podCIDR` to be selected by"
        );
        assert_eq!(
            refused(json!([{"matchFields": [{"key": NAME, "operator": "Exists"}]}])),
            "its node affinity is refused: `metadata.name` takes In or NotIn, not `Exists`"
        );
        assert!(refused(json!("n1")).starts_with("its node affinity cannot be read: "));
    }

    #[test]
    fn a_pinned_pod_fits_its_node_alone() {
        let mut pinned = Object::from_value(pod("a")).unwrap();
        assert_eq!(pinned_to(&pinned), None);
        pin(&mut pinned, "n2");
        assert_eq!(pinned_to(&pinned), Some("n2"));
        let affinity = Affinity::of(&pinned).unwrap();
        let nodes = ["n1", "n2"].map(|name| Object::from_value(node(name)).unwrap());
        assert_eq!(nodes.map(|node| affinity.allows(&node)), [false, true]);
    }
}
