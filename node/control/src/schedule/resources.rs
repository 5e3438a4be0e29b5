//! How much a pod asks for, and how much a node has.
//!
//! Invariant: amounts are exact whole numbers: thousandths of a CPU, units of everything else; sums never wrap.

use std::collections::BTreeMap;

use quorate_proto::{
    object::Object,
    quantity::{Quantity, QuantityError},
};
use serde_json::Value;

use crate::edit::items;

/// Amounts by the name of the resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resources(pub(super) BTreeMap<String, i64>);

impl Resources {
    /// Reads a map of quantities; what is no quantity is left out.
    pub(super) fn of_node(node: &Object) -> Self {
        let quantities = node.strings(&["status", "allocatable"]);
        let amount = |(name, text): (&str, &str)| Some((name.to_owned(), amount(name, text).ok()?));
        Self(quantities.into_iter().filter_map(amount).collect())
    }

    /// What a pod asks for, as in `k8s.io/component-helpers/resource`: the sum of its containers and sidecars, or the largest init container
    /// with the sidecars before it if that is more, and the overhead. A limit without a request is a request. Every pod takes one of `pods`.
    ///
    /// # Errors
    /// If an amount is no quantity.
    pub(super) fn of_pod(pod: &Object) -> Result<Self, String> {
        let mut total = Self::default();
        for container in items(pod, &["spec", "containers"]) {
            total.add(&of_container(container)?);
        }
        let (mut sidecars, mut largest) = (Self::default(), Self::default());
        for container in items(pod, &["spec", "initContainers"]) {
            let mut request = of_container(container)?;
            if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
                sidecars.add(&request);
                request = sidecars.clone();
            } else {
                request.add(&sidecars);
            }
            largest.raise_to(&request);
        }
        total.add(&sidecars);
        total.raise_to(&largest);
        total.add(&of_quantities(pod.at(&["spec", "overhead"]))?);
        total.0.insert("pods".to_owned(), 1);
        Ok(total)
    }

    /// The amount of one resource.
    pub(super) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Adds amounts.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let largest = self.0.entry(name.clone()).or_default();
            *largest = (*largest).max(*amount);
        }
    }
}

fn of_container(container: &Value) -> Result<Resources, String> {
    let resources = |field: &str| container.get("resources").and_then(|resources| resources.get(field));
    let mut limits = of_quantities(resources("limits"))?;
    limits.0.extend(of_quantities(resources("requests"))?.0);
    Ok(limits)
}

fn of_quantities(quantities: Option<&Value>) -> Result<Resources, String> {
    let Some(Value::Object(quantities)) = quantities else { return Ok(Resources::default()) };
    let amounts = quantities.iter().map(|(name, quantity)| {
        // A whole number may stand in a manifest without quotes.
        let text = quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned);
        let amount = amount(name, &text).map_err(|error| format!("its request for {name} cannot be read: {error}"))?;
        Ok((name.clone(), amount.max(0)))
    });
    Ok(Resources(amounts.collect::<Result<_, String>>()?))
}

fn amount(name: &str, text: &str) -> Result<i64, QuantityError> {
    let quantity: Quantity = text.parse()?;
    Ok(if name == "cpu" { quantity.millis() } else { quantity.units() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_what_it_asks_for_in_kubernetes() {
        let container = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let mut sidecar = container("100m", "10Mi");
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
            "initContainers": [container("1", "1Mi"), sidecar, container("2", "1Mi")],
            "containers": [container("500m", "64Mi"), {"resources": {"limits": {"cpu": 1, "memory": "1Mi"}, "requests": {"cpu": "0.25"}}}],
            "overhead": {"cpu": "1m"},
        }});
        let asked = Resources::of_pod(&Object::from_value(pod).unwrap()).unwrap();
        assert_eq!((asked.get("cpu"), asked.get("memory"), asked.get("pods")), (2101, 75 << 20, 1));
    }
}
