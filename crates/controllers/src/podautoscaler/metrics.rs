//! The metrics APIs, which other servers provide: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`.

use super::usage::{Sample, Samples, milli};
use crate::ownership::message;
use api::machinery::api::resource::Quantity;
use api::machinery::apis::meta::v1::Time;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

const RESOURCE: &str = "metrics.k8s.io";
const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
/// The time over which a metric is measured where its server does not say.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Option<Time>,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Option<Named>,
    timestamp: Option<Time>,
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: Quantity,
}

/// Asks the metrics APIs.
pub(super) struct Metrics {
    pub client: Client,
}

impl Metrics {
    /// What each selected pod, or its container, uses of a resource.
    pub async fn of_resource(
        &self,
        namespace: &str,
        selector: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let path = format!("/apis/{RESOURCE}/v1beta1/namespaces/{namespace}/pods?labelSelector={}", encoded(selector));
        let list: List<PodMetrics> =
            self.get(&path, "pods.metrics.k8s.io").await.map_err(|why| unable("resource", &why))?;
        let items = some(list.items, "resource")?;
        Ok(items
            .iter()
            .filter_map(|pod| Some((pod.metadata.name.clone(), sample(pod, resource, container)?)))
            .collect())
    }

    /// A metric of each selected pod.
    pub async fn of_pods(
        &self,
        namespace: &str,
        selector: &str,
        name: &str,
        metric_selector: &str,
    ) -> Result<Samples, String> {
        let query = format!("labelSelector={}&metricLabelSelector={}", encoded(selector), encoded(metric_selector));
        let list = self.custom(&format!("namespaces/{namespace}/pods/%2A/{}?{query}", encoded(name))).await?;
        let sample = |m: MetricValue| {
            let window = m.window_seconds.map_or(WINDOW, SignedDuration::from_secs);
            Some((m.described_object?.name, Sample { value: milli(&m.value), at: time(m.timestamp.as_ref()), window }))
        };
        Ok(list.into_iter().filter_map(sample).collect())
    }

    /// A metric of one object, `resource` being `ingresses.networking.k8s.io` or `namespaces`.
    pub async fn of_object(
        &self,
        namespace: &str,
        resource: &str,
        object: &str,
        name: &str,
        metric_selector: &str,
    ) -> Result<i64, String> {
        let object = match resource {
            "namespaces" => "metrics".to_owned(),
            resource => format!("{resource}/{}", encoded(object)),
        };
        let query = format!("metricLabelSelector={}", encoded(metric_selector));
        let list = self.custom(&format!("namespaces/{namespace}/{object}/{}?{query}", encoded(name))).await?;
        Ok(list.first().map_or(0, |m| milli(&m.value)))
    }

    /// The values of a metric that belongs to nothing in the cluster.
    pub async fn external(&self, namespace: &str, name: &str, metric_selector: &str) -> Result<Vec<i64>, String> {
        let query = format!("labelSelector={}", encoded(metric_selector));
        let path = format!("/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{}?{query}", encoded(name));
        let list: List<MetricValue> =
            self.get(&path, &format!("{name}.{EXTERNAL}")).await.map_err(|why| unable("external", &why))?;
        Ok(some(list.items, "external")?.iter().map(|m| milli(&m.value)).collect())
    }

    async fn custom(&self, path: &str) -> Result<Vec<MetricValue>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Group {
            preferred_version: Version,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            group_version: String,
        }
        let missing = format!("no custom metrics API ({CUSTOM}) registered");
        let group: Group = self.get(&format!("/apis/{CUSTOM}"), "").await.map_err(|_| unable("custom", &missing))?;
        let path = format!("/apis/{}/{path}", group.preferred_version.group_version);
        let list: List<MetricValue> = self.get(&path, CUSTOM).await.map_err(|why| unable("custom", &why))?;
        some(list.items, "custom")
    }

    /// `what`: the resource that is named where there is nothing at all under the path.
    async fn get<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, String> {
        let request = http::Request::get(path).header("accept", "application/json").body(Vec::new());
        let request = request.map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 && status.reason != "NotFound" => {
                format!("the server could not find the requested resource (get {what})")
            }
            error => message(error),
        })
    }
}

fn unable(api: &str, why: &str) -> String {
    format!("unable to fetch metrics from {api} metrics API: {why}")
}

fn some<T>(items: Vec<T>, api: &str) -> Result<Vec<T>, String> {
    if items.is_empty() { Err(format!("no metrics returned from {api} metrics API")) } else { Ok(items) }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn time(at: Option<&Time>) -> Timestamp {
    at.map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// `None` where a container is not measured.
fn sample(pod: &PodMetrics, resource: &str, container: Option<&str>) -> Option<Sample> {
    let mut containers = pod.containers.iter().filter(|c| container.is_none_or(|wanted| c.name == wanted)).peekable();
    containers.peek()?;
    let value = containers.map(|c| c.usage.get(resource).map(milli)).sum::<Option<i64>>()?;
    let window = pod.window.parse::<SignedDuration>().unwrap_or(SignedDuration::ZERO);
    Some(Sample { value, at: time(pod.timestamp.as_ref()), window })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_sums_of_containers() {
        let pod: PodMetrics = serde_json::from_str(
            r#"{"metadata": {"name": "p"}, "timestamp": "2026-01-01T00:00:00Z", "window": "20s", "containers": [
                {"name": "a", "usage": {"cpu": "100m", "memory": "1Ki"}}, {"name": "b", "usage": {"cpu": "1"}}]}"#,
        )
        .expect("metrics");
        let value = |resource, container| sample(&pod, resource, container).map(|s| s.value);
        assert_eq!(value("cpu", None), Some(1100));
        assert_eq!(value("memory", None), None);
        assert_eq!(value("memory", Some("a")), Some(1_024_000));
        assert_eq!(value("cpu", Some("c")), None);
        assert_eq!(sample(&pod, "cpu", None).map(|s| s.window), Some(SignedDuration::from_secs(20)));
    }
}
