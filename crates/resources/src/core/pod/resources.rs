//! What a pod's containers ask for, and the quality-of-service class that follows.

use crate::core::quantities::quantity;
use crate::field::Fields;
use api::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// What all containers request together: the sum of the app containers (and of init containers that keep
/// running), or what the hungriest init container needs.
pub fn container_requests(spec: &Value) -> Amounts {
    together(spec, "requests")
}

/// The limits of all containers together, by the same rule.
pub fn container_limits(spec: &Value) -> Amounts {
    together(spec, "limits")
}

fn together(spec: &Value, list: &str) -> Amounts {
    let mut total = Amounts::new();
    spec.list("containers").iter().for_each(|c| add(&mut total, &amounts(c, list)));
    let mut keep_running = Amounts::new();
    let mut peak = Amounts::new();
    for c in spec.list("initContainers") {
        let mut needs = amounts(c, list);
        if c.text("restartPolicy") == "Always" {
            add(&mut total, &needs);
            add(&mut keep_running, &needs);
            needs = keep_running.clone();
        } else {
            add(&mut needs, &keep_running);
        }
        raise(&mut peak, &needs);
    }
    raise(&mut total, &peak);
    total
}

fn amounts(c: &Value, list: &str) -> Amounts {
    c.at("resources").entries(list).map(|(name, value)| (name.clone(), quantity(value))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, value) in more {
        let sum = total.get(name).map_or(*value, |had| had.plus(value));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, value) in other {
        if total.get(name).is_none_or(|had| had < value) {
            total.insert(name.clone(), *value);
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &Value) -> &'static str {
    let pod = spec.at("resources");
    if pod.entries("limits").chain(pod.entries("requests")).any(|(n, _)| n == "cpu" || n == "memory") {
        return class(std::iter::once(pod));
    }
    let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
    class(containers.map(|c| c.at("resources")))
}

fn class<'a>(all: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        for name in ["cpu", "memory"] {
            let of = |list: &str| Some(quantity(resources.at(list).at(name))).filter(|q| q.sign() > 0);
            let (limit, request) = (of("limits"), of("requests"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        for (resources, want) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": both, "requests": both}), "Guaranteed"),
            (json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&json!({"containers": [{"resources": resources}]})), want, "{resources}");
        }
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let r = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sums = container_requests(&json!({"containers": [r("1"), r("1")], "initContainers": [r("3")]}));
        assert_eq!(sums["cpu"].to_string(), "3");
    }
}
