//! How many replicas a measure of pods asks for: pure arithmetic on samples.

use crate::pods;
use api::k8s::core::v1::Pod;
use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A pod that started less than this ago may not be ready for other reasons than its load.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that turned unready within this time of its start was never ready.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What was measured of a pod, in thousandths.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

/// Samples by the name of the pod.
pub(super) type Samples = BTreeMap<String, Sample>;

/// What the pods together should use.
pub(super) enum Target {
    /// This part (percent) of what they request; requests by the name of the pod.
    Utilization(i32, BTreeMap<String, i64>),
    /// So much on average.
    Average(i64),
}

/// How far from the target usage may be before anything is done, as parts of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    pub down: f64,
    pub up: f64,
}

impl Tolerance {
    pub fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub replicas: i32,
    pub utilization: Option<i32>,
    pub average: i64,
}

/// The state of usage: its ratio to the target, and what is shown of it.
struct Usage {
    ratio: f64,
    utilization: Option<i32>,
    average: i64,
}

/// Replicas that would bring usage to its target. `cpu`: samples of pods that are starting do not count.
pub(super) fn replicas(
    current: i32,
    pods: &[Arc<Pod>],
    mut samples: Samples,
    target: &Target,
    tolerance: Tolerance,
    cpu: bool,
) -> Result<Measured, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(pods, &samples, cpu, Timestamp::now());
    samples.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let usage = usage(&samples, target)?;
    let measured = |replicas| Measured { replicas, utilization: usage.utilization, average: usage.average };
    let unready_count = !groups.unready.is_empty() && usage.ratio > 1.0;
    if !unready_count && groups.missing.is_empty() {
        let wanted = if tolerance.covers(usage.ratio) { current } else { ceil(usage.ratio * groups.ready as f64) };
        return Ok(measured(wanted));
    }
    // What is not known is taken to speak against the change.
    let assumed =
        |pod: &String, value| (pod.clone(), Sample { value, at: Timestamp::UNIX_EPOCH, window: SignedDuration::ZERO });
    if usage.ratio < 1.0 {
        samples.extend(groups.missing.iter().map(|pod| assumed(pod, full(target, pod))));
    } else if usage.ratio > 1.0 {
        samples.extend(groups.missing.iter().map(|pod| assumed(pod, 0)));
    }
    if unready_count {
        samples.extend(groups.unready.iter().map(|pod| assumed(pod, 0)));
    }
    let ratio = self::usage(&samples, target)?.ratio;
    let turned = (usage.ratio < 1.0 && ratio > 1.0) || (usage.ratio > 1.0 && ratio < 1.0);
    let wanted = ceil(ratio * samples.len() as f64);
    let against = (ratio < 1.0 && wanted > current) || (ratio > 1.0 && wanted < current);
    Ok(measured(if tolerance.covers(ratio) || turned || against { current } else { wanted }))
}

/// Replicas for a measure of something else than the pods, `ratio` times its target.
pub(super) fn replicas_for_ratio(
    current: i32,
    pods: &[Arc<Pod>],
    ratio: f64,
    tolerance: Tolerance,
) -> Result<i32, String> {
    if current == 0 {
        return Ok(ceil(ratio));
    }
    if tolerance.covers(ratio) {
        return Ok(current);
    }
    if pods.is_empty() {
        let why = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {why}"));
    }
    let ready = pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
    Ok(ceil(ratio * ready as f64))
}

/// Replicas for a measure that they share, and what each has of it.
pub(super) fn replicas_for_share(counted: i32, usage: i64, target: i64, tolerance: Tolerance) -> (i32, i64) {
    let ratio = usage as f64 / (target as f64 * f64::from(counted));
    let wanted = if tolerance.covers(ratio) { counted } else { ceil(usage as f64 / target as f64) };
    (wanted, (usage as f64 / f64::from(counted)).ceil() as i64)
}

/// Saturates at the ends of the type.
fn ceil(number: f64) -> i32 {
    number.ceil() as i32
}

/// What a pod whose usage is not known is taken to use where usage is low.
fn full(target: &Target, pod: &str) -> i64 {
    match target {
        Target::Average(target) => *target,
        Target::Utilization(percent, requests) => {
            requests.get(pod).copied().unwrap_or(0) * i64::from((*percent).max(100)) / 100
        }
    }
}

fn usage(samples: &Samples, target: &Target) -> Result<Usage, String> {
    match target {
        Target::Average(target) => {
            let sum: i64 = samples.values().fold(0, |sum, s| sum.saturating_add(s.value));
            let average = sum / samples.len() as i64;
            Ok(Usage { ratio: average as f64 / *target as f64, utilization: None, average })
        }
        Target::Utilization(percent, requests) => {
            let known = samples.iter().filter_map(|(pod, s)| requests.get(pod).map(|r| (s.value, *r)));
            let (mut used, mut requested, mut count) = (0i64, 0i64, 0);
            for (value, request) in known {
                (used, requested, count) = (used.saturating_add(value), requested.saturating_add(request), count + 1);
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let utilization = i32::try_from(i128::from(used) * 100 / i128::from(requested)).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(*percent);
            Ok(Usage { ratio, utilization: Some(utilization), average: used / count })
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Groups {
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
    ignored: Vec<String>,
}

fn group(pods: &[Arc<Pod>], samples: &Samples, cpu: bool, now: Timestamp) -> Groups {
    let mut out = Groups::default();
    for pod in pods {
        let name = pods::name(pod).to_owned();
        match samples.get(&name) {
            _ if pods::is_deleting(pod) || pods::phase(pod) == "Failed" => out.ignored.push(name),
            _ if pods::phase(pod) == "Pending" => out.unready.push(name),
            None => out.missing.push(name),
            Some(sample) if cpu && is_starting(pod, sample, now) => out.unready.push(name),
            Some(_) => out.ready += 1,
        }
    }
    out
}

/// Whether the CPU a pod uses is that of its start.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let (unready, later) = (ready.status == "False", |at: Timestamp, by| at.checked_add(by).unwrap_or(Timestamp::MAX));
    match later(started, CPU_INITIALIZATION) > now {
        true => unready || sample.at < later(changed, sample.window),
        false => unready && later(started, INITIAL_READINESS) > changed,
    }
}

/// What each pod requests of a resource, in thousandths.
pub(super) fn requests(
    pods: &[Arc<Pod>],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<String, i64>, String> {
    pods.iter().map(|pod| Ok((pods::name(pod).to_owned(), request(pod, container, resource)?))).collect()
}

fn request(pod: &Pod, container: Option<&str>, resource: &str) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let name = pods::name(pod);
    let of_pod = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).filter(|_| container.is_none());
    if let Some(requests) = of_pod {
        let found = requests.get(resource).map(milli);
        return found.ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"));
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0;
    for c in spec.containers.iter().chain(sidecars).filter(|c| container.is_none_or(|wanted| wanted == c.name)) {
        let requests = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        let Some(found) = requests.and_then(|r| r.get(resource)) else {
            return Err(format!("missing request for {resource} in container {} of Pod {name}", c.name));
        };
        sum += milli(found);
        if container.is_some() {
            return Ok(sum);
        }
    }
    match container {
        Some(container) => Err(format!("container {container} not found in Pod {name}")),
        None => Ok(sum),
    }
}

/// Thousandths of a quantity; an unreadable one is nothing.
pub(super) fn milli(quantity: &api::machinery::api::resource::Quantity) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |q| q.milli_value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods(of: &[(&str, &str, i64)]) -> (Vec<Arc<Pod>>, Samples) {
        let long_ago = "2020-01-01T00:00:00Z";
        let pod = |(name, phase, _): &(&str, &str, i64)| {
            let pod = json!({
                "metadata": {"name": name},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
                "status": {"phase": phase, "startTime": long_ago,
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]},
            });
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        let sample = |value| Sample { value, at: Timestamp::now(), window: SignedDuration::from_secs(30) };
        let measured = of.iter().filter(|(_, _, value)| *value >= 0);
        (of.iter().map(pod).collect(), measured.map(|(name, _, value)| ((*name).to_owned(), sample(*value))).collect())
    }

    #[test]
    fn usage_asks_for_replicas() {
        let check = |current, of: &[(&str, &str, i64)], percent, want: Result<(i32, i32), &str>| {
            let (pods, samples) = pods(of);
            let target = Target::Utilization(percent, requests(&pods, None, "cpu").expect("requests"));
            let got = replicas(current, &pods, samples, &target, Tolerance { down: 0.1, up: 0.1 }, true);
            let got = got.map(|m| (m.replicas, m.utilization.unwrap_or(0)));
            assert_eq!(got, want.map_err(str::to_owned), "{of:?}");
        };
        check(2, &[("a", "Running", 900), ("b", "Running", 900)], 50, Ok((4, 90)));
        check(2, &[("a", "Running", 500), ("b", "Running", 520)], 50, Ok((2, 51)));
        check(
            4,
            &[("a", "Running", 100), ("b", "Running", 100), ("c", "Running", 100), ("d", "Running", 100)],
            50,
            Ok((1, 10)),
        );
        // a pod without a sample is taken to use all it requested, which forbids scaling down
        check(2, &[("a", "Running", 300), ("b", "Running", -1)], 50, Ok((2, 30)));
        // one that waits is taken to use nothing
        check(2, &[("a", "Running", 900), ("b", "Pending", -1)], 50, Ok((2, 90)));
        check(1, &[("a", "Failed", 900)], 50, Err("did not receive metrics for targeted pods (pods might be unready)"));
        check(1, &[], 50, Err("no pods returned by selector while calculating replica count"));
    }

    #[test]
    fn shares_and_ratios() {
        let tolerance = Tolerance { down: 0.1, up: 0.1 };
        assert_eq!(replicas_for_share(2, 10_000, 2_000, tolerance), (5, 5_000));
        assert_eq!(replicas_for_share(5, 10_000, 2_000, tolerance), (5, 2_000));
        let (pods, _) = pods(&[("a", "Running", 0), ("b", "Pending", 0)]);
        assert_eq!(replicas_for_ratio(2, &pods, 3.5, tolerance), Ok(4));
        assert_eq!(replicas_for_ratio(0, &[], 3.5, tolerance), Ok(4));
    }
}
