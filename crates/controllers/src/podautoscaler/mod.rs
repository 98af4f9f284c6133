//! HorizontalPodAutoscalers: as many replicas as metrics ask for, within what rules allow.
//!
//! Metrics have no events: every 15 seconds an autoscaler's are read and its target's scale is set.

mod limits;
mod metrics;
mod proposal;
mod target;
mod usage;

use crate::context::{Context, synced};
use crate::ownership::message;
use crate::pods;
use api::k8s::autoscaling::v1::Scale;
use api::k8s::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition as Condition, HorizontalPodAutoscalerSpec, MetricStatus,
};
use api::k8s::core::v1::Pod;
use api::quantity::Quantity;
use api::selector::LabelSelector;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::Timestamp;
use kube::api::PostParams;
use limits::{Memory, Sizes};
use metrics::Metrics;
use parking_lot::Mutex;
use proposal::{Failure, Surroundings};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use target::Targets;
use usage::Tolerance;

/// How often metrics are read.
const PERIOD: Duration = Duration::from_secs(15);
const TOLERANCE: f64 = 0.1;

struct Autoscalers {
    ctx: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    targets: Targets,
    metrics: Metrics,
    memory: Mutex<HashMap<Key, Memory>>,
    /// The pods that each autoscaler's target has.
    selectors: Mutex<HashMap<Key, LabelSelector>>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (autoscalers, pods) = (ctx.informer::<HorizontalPodAutoscaler>(), ctx.informer::<Pod>());
    let enqueue = queue.clone();
    autoscalers.on_event(move |event| match event {
        Event::Updated { old, new } if old.spec == new.spec => {}
        Event::Deleted(autoscaler) => enqueue.add(Key::of(autoscaler.as_ref())),
        // The first look is a period away too: a target that was just made has no metrics yet.
        event => enqueue.add_after(Key::of(event.object().as_ref()), PERIOD),
    });
    synced!(autoscalers, pods);
    let reconciler = Autoscalers {
        autoscalers,
        pods,
        targets: Targets::new(ctx.client.clone()),
        metrics: Metrics { client: ctx.client.clone() },
        memory: Mutex::default(),
        selectors: Mutex::default(),
        ctx: ctx.clone(),
    };
    Controller::new("horizontalpodautoscaler", queue, reconciler).workers(2).run(ctx.shutdown()).await;
}

impl Reconcile for Autoscalers {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(autoscaler) = self.autoscalers.get_key(key) else {
            self.memory.lock().remove(key);
            self.selectors.lock().remove(key);
            return Ok(Requeue::Done);
        };
        let mut wanted = HorizontalPodAutoscaler::clone(&autoscaler);
        if let Err(why) = self.decide(key, &mut wanted).await {
            tracing::debug!(autoscaler = %key, why, "cannot scale");
        }
        if wanted.status != autoscaler.status {
            let api = self.ctx.api::<HorizontalPodAutoscaler>(&key.namespace);
            if let Err(error) = api.replace_status(&key.name, &PostParams::default(), &wanted).await {
                self.ctx.warning(autoscaler.as_ref(), "FailedUpdateStatus", message(&error));
                return Err(error.into());
            }
        }
        Ok(Requeue::After(PERIOD))
    }
}

/// What the metrics say together.
struct Advice {
    replicas: i32,
    /// Metric that asked for it.
    metric: String,
}

impl Autoscalers {
    /// Scales the target and sets the status to what was found.
    async fn decide(&self, key: &Key, autoscaler: &mut HorizontalPodAutoscaler) -> Result<(), String> {
        let spec = autoscaler.spec.clone();
        let reference = &spec.scale_target_ref;
        let version = reference.api_version.as_deref().unwrap_or("");
        let path = self.targets.path(&key.namespace, version, &reference.kind, &reference.name).await;
        let scale = match &path {
            Ok(path) => self.targets.scale(path).await.map_err(|error| message(&error)),
            Err(why) => Err(why.clone()),
        };
        let (path, scale) = match (path, scale) {
            (Ok(path), Ok(scale)) => (path, scale),
            (Err(why), _) | (_, Err(why)) => {
                self.ctx.warning(autoscaler, "FailedGetScale", why.clone());
                let text = format!("the HPA controller was unable to get the target's current scale: {why}");
                set_condition(autoscaler, "AbleToScale", false, "FailedGetScale", &text);
                return Err(why);
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        set_condition(autoscaler, "AbleToScale", true, "SucceededGetScale", text);
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        self.with_memory(key, |memory| memory.begin(current, Timestamp::now()));
        let mut statuses = Vec::new();
        let decided = self.wanted(key, autoscaler, &spec, &scale, &mut statuses).await;
        let (wanted, reason) = match decided {
            Ok(decided) => decided,
            Err(why) => {
                let before = autoscaler.status.as_ref().map_or(0, |s| s.desired_replicas);
                set_numbers(autoscaler, current, before, statuses);
                self.ctx.warning(autoscaler, "FailedComputeMetricsReplicas", why.clone());
                return Err(why);
            }
        };
        if wanted == current {
            set_numbers(autoscaler, current, current, statuses);
            return Ok(());
        }
        match self.targets.set(&path, scale, wanted).await {
            Err(error) => {
                let why = message(&error);
                let text = format!("New size: {wanted}; reason: {reason}; error: {why}");
                self.ctx.warning(autoscaler, "FailedRescale", text);
                let text = format!("the HPA controller was unable to update the target scale: {why}");
                set_condition(autoscaler, "AbleToScale", false, "FailedUpdateScale", &text);
                let before = autoscaler.status.as_ref().map_or(0, |s| s.desired_replicas);
                set_numbers(autoscaler, current, before, statuses);
                Err(why)
            }
            Ok(()) => {
                let text = format!("the HPA controller was able to update the target scale to {wanted}");
                set_condition(autoscaler, "AbleToScale", true, "SucceededRescale", &text);
                let text = format!("New size: {wanted}; reason: {reason}");
                self.ctx.normal(autoscaler, "SuccessfulRescale", text);
                self.with_memory(key, |memory| memory.changed(current, wanted, Timestamp::now()));
                set_numbers(autoscaler, current, wanted, statuses);
                autoscaler.status.get_or_insert_default().last_scale_time = Some(pods::now());
                Ok(())
            }
        }
    }

    fn with_memory<T>(&self, key: &Key, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(self.memory.lock().entry(key.clone()).or_default())
    }

    /// The size the target should have, and why it should change.
    async fn wanted(
        &self,
        key: &Key,
        autoscaler: &mut HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        statuses: &mut Vec<MetricStatus>,
    ) -> Result<(i32, String), String> {
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let min = spec.min_replicas.unwrap_or(1);
        if current == 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            set_condition(autoscaler, "ScalingActive", false, "ScalingDisabled", text);
            return Ok((0, String::new()));
        }
        if current > spec.max_replicas {
            return Ok((spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".into()));
        }
        if current < min {
            return Ok((min, "Current number of replicas below Spec.MinReplicas".into()));
        }
        let advice = self.advice(key, autoscaler, spec, scale, statuses).await?;
        let sizes = Sizes { current, wanted: advice.replicas, min, max: spec.max_replicas };
        let rules = spec.behavior.as_ref().map(|b| (b.scale_up.clone(), b.scale_down.clone()));
        let limited = self.with_memory(key, |memory| match rules {
            None => memory.limit(sizes, Timestamp::now()),
            Some((up, down)) => {
                memory.limit_by_rules(sizes, &up.unwrap_or_default(), &down.unwrap_or_default(), Timestamp::now())
            }
        });
        set_condition(autoscaler, "AbleToScale", true, limited.able.0, limited.able.1);
        set_condition(autoscaler, "ScalingLimited", limited.limited, limited.limit.0, limited.limit.1);
        let reason = match advice.replicas.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", advice.metric),
            std::cmp::Ordering::Less => "All metrics below target".into(),
            std::cmp::Ordering::Equal => String::new(),
        };
        Ok((limited.replicas, reason))
    }

    /// The largest number that any metric asks for. Metrics that fail forbid scaling down.
    async fn advice(
        &self,
        key: &Key,
        autoscaler: &mut HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        statuses: &mut Vec<MetricStatus>,
    ) -> Result<Advice, String> {
        let selector = scale.status.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        let pods = self.pods(key, autoscaler, &selector)?;
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let surroundings = Surroundings {
            metrics: &self.metrics,
            targets: &self.targets,
            namespace: &key.namespace,
            selector: &selector,
            pods: &pods,
            wanted: current,
            counted: scale.status.as_ref().map_or(0, |s| s.replicas),
            tolerance: tolerance(spec),
        };
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let (mut best, mut failures) = (None::<Advice>, Vec::<Failure>::new());
        for metric in metrics {
            match surroundings.propose(metric).await {
                Ok(proposal) => {
                    statuses.push(proposal.status);
                    if best.as_ref().is_none_or(|b| proposal.replicas > b.replicas) {
                        best = Some(Advice { replicas: proposal.replicas, metric: proposal.name });
                    }
                }
                Err(failure) => {
                    statuses.push(MetricStatus::default());
                    self.ctx.warning(autoscaler, failure.reason, failure.why.clone());
                    failures.push(failure);
                }
            }
        }
        match (best, failures.first()) {
            (Some(best), None) => Ok(best),
            (Some(best), Some(_)) if best.replicas >= current => Ok(best),
            (_, Some(first)) => {
                let text = format!("the HPA was unable to compute the replica count: {}", first.why);
                set_condition(autoscaler, "ScalingActive", false, first.reason, &text);
                let (bad, all) = (failures.len(), metrics.len());
                Err(format!("invalid metrics ({bad} invalid out of {all}), first error is: {}", first.error))
            }
            (None, None) => Ok(Advice { replicas: current, metric: String::new() }),
        }
        .inspect(|best| {
            let text = format!("the HPA was able to successfully calculate a replica count from {}", best.metric);
            set_condition(autoscaler, "ScalingActive", true, "ValidMetricFound", &text);
        })
    }

    /// The pods of the target, which no other autoscaler may have.
    fn pods(&self, key: &Key, autoscaler: &mut HorizontalPodAutoscaler, text: &str) -> Result<Vec<Arc<Pod>>, String> {
        let mut refuse = |event: &str, reason: &str, why: String, shown: &str| {
            self.ctx.warning(autoscaler, event, why.clone());
            set_condition(autoscaler, "ScalingActive", false, reason, shown);
            Err(why)
        };
        if text.is_empty() {
            let shown = "the HPA target's scale is missing a selector";
            return refuse("SelectorRequired", "InvalidSelector", "selector is required".into(), shown);
        }
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(why) => {
                let why = format!("couldn't convert selector into a corresponding internal selector object: {why}");
                return refuse("InvalidSelector", "InvalidSelector", why.clone(), &why);
            }
        };
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()));
        let mut selectors = self.selectors.lock();
        selectors.insert(key.clone(), selector);
        let rivals = selectors.iter().filter(|(other, selector)| {
            other.namespace == key.namespace && pods.iter().any(|p| selector.matches_labels(p.metadata.labels.as_ref()))
        });
        let mut rivals: Vec<String> = rivals.map(|(k, _)| format!("{{{} {}}}", k.name, k.namespace)).collect();
        drop(selectors);
        if rivals.len() > 1 {
            rivals.sort();
            let why = format!("pods by selector {text} are controlled by multiple HPAs: [{}]", rivals.join(" "));
            return refuse("AmbiguousSelector", "AmbiguousSelector", why.clone(), &why);
        }
        Ok(pods)
    }
}

fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    let of = |rules: Option<&api::k8s::autoscaling::v2::HPAScalingRules>| {
        let quantity = rules.and_then(|r| r.tolerance.as_ref()).and_then(|q| Quantity::parse(&q.0).ok());
        quantity.map_or(TOLERANCE, |q| q.milli_value() as f64 / 1000.0)
    };
    let behavior = spec.behavior.as_ref();
    Tolerance {
        down: of(behavior.and_then(|b| b.scale_down.as_ref())),
        up: of(behavior.and_then(|b| b.scale_up.as_ref())),
    }
}

fn set_numbers(autoscaler: &mut HorizontalPodAutoscaler, current: i32, desired: i32, metrics: Vec<MetricStatus>) {
    let status = autoscaler.status.get_or_insert_default();
    status.current_replicas = Some(current).filter(|n| *n != 0);
    status.desired_replicas = desired;
    status.current_metrics = Some(metrics).filter(|m| !m.is_empty());
    status.observed_generation = None;
}

fn set_condition(autoscaler: &mut HorizontalPodAutoscaler, kind: &str, value: bool, reason: &str, message: &str) {
    let conditions = autoscaler.status.get_or_insert_default().conditions.get_or_insert_default();
    let at = conditions.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
        conditions.push(Condition { type_: kind.into(), ..Default::default() });
        conditions.len() - 1
    });
    let (condition, value) = (&mut conditions[at], if value { "True" } else { "False" });
    if condition.status != value {
        condition.last_transition_time = Some(pods::now());
    }
    condition.status = value.into();
    condition.reason = Some(reason.into());
    condition.message = Some(message.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_place_and_time() {
        let mut autoscaler = HorizontalPodAutoscaler::default();
        set_condition(&mut autoscaler, "AbleToScale", true, "A", "a");
        set_condition(&mut autoscaler, "ScalingActive", false, "B", "b");
        let before = autoscaler.status.clone();
        set_condition(&mut autoscaler, "AbleToScale", true, "C", "c");
        let conditions = autoscaler.status.and_then(|s| s.conditions).expect("conditions");
        let kinds: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap_or(""))).collect();
        assert_eq!(kinds, [("AbleToScale", "C"), ("ScalingActive", "B")]);
        let old = before.and_then(|s| s.conditions).expect("conditions");
        assert_eq!(conditions[0].last_transition_time, old[0].last_transition_time);
    }
}
