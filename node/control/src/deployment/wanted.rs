//! What a deployment asks for, read once.
//!
//! Invariant: a percentage is rounded as in Kubernetes: surge up, unavailable down, and never both to nothing.

use std::time::Duration;

use quorate_proto::{
    k8s::{api::apps::v1::RollingUpdateDeployment, apimachinery::pkg::util::intstr::IntOrString},
    object::Object,
};
use serde_json::{Value, json};

use super::rollout::Bounds;
use crate::edit::{number, view};

/// A deployment's spec.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) bounds: Bounds,
    /// All old pods end before the first new one starts.
    pub(super) recreate: bool,
    pub(super) paused: bool,
    /// How many old replicasets are kept to go back to.
    pub(super) history: usize,
    /// How long a rollout may make no progress.
    pub(super) deadline: Duration,
    pub(super) min_ready_seconds: i64,
    pub(super) template: Value,
}

impl Wanted {
    /// Reads a deployment.
    ///
    /// # Errors
    /// In words, if its strategy cannot be read.
    pub(super) fn of(deployment: &Object) -> Result<Self, String> {
        let spec = |field: &str| number(deployment, &["spec", field]);
        let count = |field: &str, default: i64| spec(field).unwrap_or(default).max(0);
        let recreate = deployment.text(&["spec", "strategy", "type"]) == Some("Recreate");
        Ok(Self {
            bounds: bounds(deployment, count("replicas", 1), recreate)?,
            recreate,
            paused: deployment.at(&["spec", "paused"]).and_then(Value::as_bool) == Some(true),
            history: usize::try_from(count("revisionHistoryLimit", 10)).unwrap_or(usize::MAX),
            deadline: Duration::from_secs(count("progressDeadlineSeconds", 600).unsigned_abs()),
            min_ready_seconds: count("minReadySeconds", 0),
            template: deployment.at(&["spec", "template"]).cloned().unwrap_or_else(|| json!({})),
        })
    }
}

fn bounds(deployment: &Object, desired: i64, recreate: bool) -> Result<Bounds, String> {
    if recreate {
        return Ok(Bounds { desired, surge: 0, unavailable: 0 });
    }
    let rolling: Option<RollingUpdateDeployment> = view(deployment, &["spec", "strategy", "rollingUpdate"])
        .map_err(|error| format!("its strategy cannot be read: {error}"))?;
    let rolling = rolling.unwrap_or_default();
    let surge = resolve(rolling.max_surge.as_ref(), "maxSurge", desired, 99)?;
    let unavailable = resolve(rolling.max_unavailable.as_ref(), "maxUnavailable", desired, 0)?;
    // Without any room nothing could ever move.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    Ok(Bounds { desired, surge, unavailable: unavailable.min(desired) })
}

/// A number, or a percentage of `desired` after adding `rounding` hundredths; 25 % if it is missing.
fn resolve(value: Option<&IntOrString>, field: &str, desired: i64, rounding: i64) -> Result<i64, String> {
    let percentage = match value {
        None => 25,
        Some(IntOrString::Int(number)) => return Ok(i64::from(*number).max(0)),
        Some(IntOrString::String(text)) => text
            .strip_suffix('%')
            .and_then(|number| number.parse::<u32>().ok())
            .ok_or_else(|| format!("its {field} `{text}` is neither a number nor a percentage"))?,
    };
    Ok((desired * i64::from(percentage) + rounding) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_as_in_kubernetes() {
        let bounds = |replicas: i64, rolling: Value| {
            let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"replicas": replicas, "strategy": {"rollingUpdate": rolling}}});
            let bounds = Wanted::of(&Object::from_value(deployment).unwrap()).map(|wanted| wanted.bounds)?;
            Ok::<_, String>((bounds.surge, bounds.unavailable))
        };
        assert_eq!(bounds(3, json!(null)), Ok((1, 0)));
        assert_eq!(bounds(10, json!({})), Ok((3, 2)));
        assert_eq!(bounds(10, json!({"maxSurge": "100%", "maxUnavailable": 20})), Ok((10, 10)));
        assert_eq!(
            bounds(3, json!({"maxSurge": 0, "maxUnavailable": "10%"})),
            Ok((0, 1)),
            "something must be able to move"
        );
        assert_eq!(
            bounds(3, json!({"maxSurge": "some"})),
            Err("its maxSurge `some` is neither a number nor a percentage".into())
        );
    }
}
