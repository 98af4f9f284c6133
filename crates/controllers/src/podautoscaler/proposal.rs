//! What each metric of an autoscaler asks for.

use super::metrics::Metrics;
use super::target::Targets;
use super::usage::{self, Target, Tolerance, milli};
use api::k8s::autoscaling::v2 as hpa;
use api::k8s::core::v1::Pod;
use api::machinery::api::resource::Quantity;
use api::machinery::apis::meta::v1::LabelSelector;
use api::quantity;
use std::sync::Arc;

/// The target of an autoscaler, as its metrics see it.
pub(super) struct Surroundings<'a> {
    pub metrics: &'a Metrics,
    pub targets: &'a Targets,
    pub namespace: &'a str,
    /// Text of the selector of the pods.
    pub selector: &'a str,
    pub pods: &'a [Arc<Pod>],
    pub wanted: i32,
    pub counted: i32,
    pub tolerance: Tolerance,
}

/// A number of replicas and what it comes from.
pub(super) struct Proposal {
    pub replicas: i32,
    /// The metric as events name it.
    pub name: String,
    pub status: hpa::MetricStatus,
}

/// A metric that cannot be had.
#[derive(Debug)]
pub(super) struct Failure {
    /// Of the event and the condition.
    pub reason: &'static str,
    pub why: String,
    /// The error as the reconciliation hands it on.
    pub error: String,
}

type Outcome = Result<Proposal, String>;

impl Surroundings<'_> {
    /// What a metric asks for.
    pub async fn propose(&self, metric: &hpa::MetricSpec) -> Result<Proposal, Failure> {
        let (outcome, reason, what) = match metric {
            hpa::MetricSpec { resource: Some(m), .. } => {
                let outcome = self.resource(m).await;
                (outcome, "FailedGetResourceMetric", format!("{} resource metric", m.name))
            }
            hpa::MetricSpec { container_resource: Some(m), .. } => {
                let outcome = self.container_resource(m).await;
                (outcome, "FailedGetContainerResourceMetric", format!("{} container metric", m.container))
            }
            hpa::MetricSpec { pods: Some(m), .. } => {
                (self.of_pods(m).await, "FailedGetPodsMetric", "pods metric".to_owned())
            }
            hpa::MetricSpec { object: Some(m), .. } => {
                (self.of_object(m).await, "FailedGetObjectMetric", "object metric".to_owned())
            }
            hpa::MetricSpec { external: Some(m), .. } => {
                let outcome = self.external(m).await;
                (outcome, "FailedGetExternalMetric", format!("{} external metric", m.metric.name))
            }
            other => {
                let why = format!("unknown metric source type {:?}", other.type_);
                return Err(Failure { reason: "InvalidMetricSourceType", error: why.clone(), why });
            }
        };
        outcome.map_err(|why| Failure { reason, error: format!("failed to get {what} value: {why}"), why })
    }

    async fn resource(&self, metric: &hpa::ResourceMetricSource) -> Outcome {
        let (replicas, name, current) = self.usage_of(&metric.name, None, &metric.target).await?;
        let resource = Some(hpa::ResourceMetricStatus { name: metric.name.clone(), current });
        Ok(Proposal {
            replicas,
            name,
            status: hpa::MetricStatus { type_: "Resource".into(), resource, ..Default::default() },
        })
    }

    async fn container_resource(&self, metric: &hpa::ContainerResourceMetricSource) -> Outcome {
        let (replicas, name, current) = self.usage_of(&metric.name, Some(&metric.container), &metric.target).await?;
        let container_resource = Some(hpa::ContainerResourceMetricStatus {
            name: metric.name.clone(),
            container: metric.container.clone(),
            current,
        });
        let status = hpa::MetricStatus { type_: "ContainerResource".into(), container_resource, ..Default::default() };
        Ok(Proposal { replicas, name, status })
    }

    /// Replicas, name and present value of a resource's usage.
    async fn usage_of(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &hpa::MetricTarget,
    ) -> Result<(i32, String, hpa::MetricValueStatus), String> {
        let of_container = if container.is_some() { " container" } else { "" };
        let (kind, name) = match (&target.average_value, target.average_utilization) {
            (Some(_), _) => ("usage", format!("{resource} resource")),
            (None, Some(_)) => {
                ("utilization", format!("{resource}{of_container} resource utilization (percentage of request)"))
            }
            (None, None) => {
                let both = "neither an average utilization target nor an average value (usage) target was set";
                return Err(format!("invalid resource metric source: {both}"));
            }
        };
        let measured = self.measure(resource, container, target).await;
        let measured = measured.map_err(|why| format!("failed to get {resource} {kind}: {why}"))?;
        let average_value = Some(match resource {
            "memory" if measured.average % 1000 == 0 => {
                let units = quantity::Quantity::from_units(measured.average / 1000, quantity::Format::BinarySi);
                Quantity(units.to_string())
            }
            _ => of_milli(measured.average),
        });
        let current = hpa::MetricValueStatus { average_utilization: measured.utilization, average_value, value: None };
        Ok((measured.replicas, name, current))
    }

    async fn measure(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &hpa::MetricTarget,
    ) -> Result<usage::Measured, String> {
        let samples = self.metrics.of_resource(self.namespace, self.selector, resource, container).await;
        let samples = samples.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))?;
        let target = match (&target.average_value, target.average_utilization) {
            (None, Some(percent)) => Target::Utilization(percent, usage::requests(self.pods, container, resource)?),
            (average, _) => Target::Average(average.as_ref().map_or(0, milli)),
        };
        usage::replicas(self.wanted, self.pods, samples, &target, self.tolerance, resource == "cpu")
    }

    async fn of_pods(&self, source: &hpa::PodsMetricSource) -> Outcome {
        let (metric, target) = (&source.metric, source.target.average_value.as_ref().map_or(0, milli));
        let samples =
            self.metrics.of_pods(self.namespace, self.selector, &metric.name, &text(metric.selector.as_ref())).await;
        let samples = samples.map_err(|why| format!("unable to get metric {}: {why}", metric.name))?;
        let measured =
            usage::replicas(self.wanted, self.pods, samples, &Target::Average(target), self.tolerance, false)?;
        let pods = Some(hpa::PodsMetricStatus { metric: metric.clone(), current: average(measured.average) });
        Ok(Proposal {
            replicas: measured.replicas,
            name: format!("pods metric {}", metric.name),
            status: hpa::MetricStatus { type_: "Pods".into(), pods, ..Default::default() },
        })
    }

    async fn of_object(&self, source: &hpa::ObjectMetricSource) -> Outcome {
        let (metric, object) = (&source.metric, &source.described_object);
        let shared = source.target.type_ == "AverageValue";
        let target = if shared { &source.target.average_value } else { &source.target.value };
        let Some(target) = target.as_ref().map(milli) else {
            return Err(
                "invalid object metric source: neither a value target nor an average value target was set".into()
            );
        };
        let usage = self.value_of(object, metric).await.map_err(|why| {
            let why = format!(
                "unable to get metric {}: {} on {} {}/{why}",
                metric.name, object.kind, self.namespace, object.name
            );
            if shared { format!("failed to get {} object metric: {why}", metric.name) } else { why }
        })?;
        let (replicas, current, name) = self.scaled(usage, target, shared)?.named(
            format!("external metric {}({})", metric.name, go_selector(metric.selector.as_ref())),
            format!("{} metric {}", object.kind, metric.name),
        );
        let object =
            Some(hpa::ObjectMetricStatus { described_object: object.clone(), metric: metric.clone(), current });
        Ok(Proposal {
            replicas,
            name,
            status: hpa::MetricStatus { type_: "Object".into(), object, ..Default::default() },
        })
    }

    async fn value_of(
        &self,
        object: &hpa::CrossVersionObjectReference,
        metric: &hpa::MetricIdentifier,
    ) -> Result<i64, String> {
        let group = object.api_version.as_deref().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
        let resource = self.targets.resource(group, &object.kind).await?;
        let selector = text(metric.selector.as_ref());
        self.metrics.of_object(self.namespace, &resource, &object.name, &metric.name, &selector).await
    }

    async fn external(&self, source: &hpa::ExternalMetricSource) -> Outcome {
        let metric = &source.metric;
        let shared = source.target.average_value.is_some();
        let Some(target) = source.target.average_value.as_ref().or(source.target.value.as_ref()).map(milli) else {
            return Err(
                "invalid external metric source: neither a value target nor an average value target was set".into()
            );
        };
        let shown = go_selector(metric.selector.as_ref());
        let failed = |why: String| match shared {
            true => format!("failed to get {} external metric: {why}", metric.name),
            false => format!("failed to get external metric {}: {why}", metric.name),
        };
        let values = self.metrics.external(self.namespace, &metric.name, &text(metric.selector.as_ref())).await;
        let values = values.map_err(|why| {
            failed(format!("unable to get external metric {}/{}/{shown}: {why}", self.namespace, metric.name))
        })?;
        let usage = values.into_iter().fold(0, i64::saturating_add);
        let name = format!("external metric {}({shown})", metric.name);
        let (replicas, current, name) = self.scaled(usage, target, shared).map_err(failed)?.named(name.clone(), name);
        let external = Some(hpa::ExternalMetricStatus { metric: metric.clone(), current });
        let status = hpa::MetricStatus { type_: "External".into(), external, ..Default::default() };
        Ok(Proposal { replicas, name, status })
    }

    /// Replicas for one value that is aimed at as a whole, or shared by the replicas.
    fn scaled(&self, usage: i64, target: i64, shared: bool) -> Result<Scaled, String> {
        if shared {
            let (replicas, each) = usage::replicas_for_share(self.counted, usage, target, self.tolerance);
            return Ok(Scaled { replicas, current: average(each), shared });
        }
        let ratio = usage as f64 / target as f64;
        let replicas = usage::replicas_for_ratio(self.wanted, self.pods, ratio, self.tolerance)?;
        let current = hpa::MetricValueStatus { value: Some(of_milli(usage)), ..Default::default() };
        Ok(Scaled { replicas, current, shared })
    }
}

struct Scaled {
    replicas: i32,
    current: hpa::MetricValueStatus,
    shared: bool,
}

impl Scaled {
    fn named(self, shared: String, whole: String) -> (i32, hpa::MetricValueStatus, String) {
        (self.replicas, self.current, if self.shared { shared } else { whole })
    }
}

fn average(milli: i64) -> hpa::MetricValueStatus {
    hpa::MetricValueStatus { average_value: Some(of_milli(milli)), ..Default::default() }
}

fn of_milli(milli: i64) -> Quantity {
    Quantity(quantity::Quantity::from_milli(milli).to_string())
}

/// A selector as a query parameter.
fn text(selector: Option<&LabelSelector>) -> String {
    let labels = selector.and_then(|s| s.match_labels.as_ref()).into_iter().flatten().map(|(k, v)| format!("{k}={v}"));
    let expressions = selector.and_then(|s| s.match_expressions.as_ref()).into_iter().flatten();
    let expressions = expressions.map(|e| {
        let values = e.values.clone().unwrap_or_default().join(",");
        match e.operator.as_str() {
            "In" => format!("{} in ({values})", e.key),
            "NotIn" => format!("{} notin ({values})", e.key),
            "DoesNotExist" => format!("!{}", e.key),
            _ => e.key.clone(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

/// A selector as Go prints it in names of metrics.
fn go_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions: Vec<String> = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|e| {
            let values = e.values.clone().unwrap_or_default().join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}}", e.key, e.operator)
        })
        .collect();
    let list = expressions.join(",");
    let list = if list.is_empty() { list } else { format!("{list},") };
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{list}}},}}",
        labels.join("")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_print() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "DoesNotExist"}]}))
        .expect("a selector");
        assert_eq!(text(Some(&selector)), "a=b,c in (x,y),!d");
        assert_eq!(text(None), "");
        assert_eq!(go_selector(None), "nil");
        let plain = LabelSelector { match_expressions: None, ..selector };
        assert_eq!(
            go_selector(Some(&plain)),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{},}"
        );
    }
}
