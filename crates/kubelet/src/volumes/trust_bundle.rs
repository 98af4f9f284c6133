//! `clusterTrustBundle` projections: certificates of a bundle, or of all bundles of a signer (KEP-3257).
//!
//! All bundles are followed by one informer, which starts with the first pod that asks for one.

use crate::objects::Wake;
use api::k8s::core::v1::ClusterTrustBundleProjection;
use base64::Engine;
use informer::{Informer, InformerFactory};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const FIRST_LIST: Duration = Duration::from_secs(5);

/// The cluster's bundles.
pub struct TrustBundles {
    client: kube::Client,
    wake: Wake,
    users: Arc<Mutex<BTreeSet<String>>>,
    informer: OnceLock<(Informer<ClusterTrustBundle>, Arc<InformerFactory>)>,
}

impl TrustBundles {
    /// Makes it; nothing is asked of the API yet.
    pub fn new(client: kube::Client, wake: Wake) -> Self {
        Self { client, wake, users: Arc::default(), informer: OnceLock::new() }
    }

    /// The PEM text of a projection; its pod is woken by changes until [`Self::release`].
    pub async fn get(&self, pod_uid: &str, source: &ClusterTrustBundleProjection) -> Result<String, String> {
        self.users.lock().insert(pod_uid.to_owned());
        let (informer, _) = self.informer.get_or_init(|| self.start());
        tokio::time::timeout(FIRST_LIST, informer.synced())
            .await
            .map_err(|_| "ClusterTrustBundle informer has not yet synced")?;
        let optional = source.optional.unwrap_or(false);
        let all = informer.list();
        let chosen: Vec<&ClusterTrustBundle> = match (&source.name, &source.signer_name) {
            (Some(name), _) => {
                let found = all.iter().find(|b| b.metadata.name.as_deref() == Some(name));
                if found.is_none() && !optional {
                    return Err(format!("clustertrustbundle.certificates.k8s.io {name:?} not found"));
                }
                found.map(AsRef::as_ref).into_iter().collect()
            }
            (None, signer) => {
                let selector = source.label_selector.clone();
                let fits = |b: &&Arc<ClusterTrustBundle>| {
                    b.spec.signer_name.as_ref() == signer.as_ref() && selected(selector.as_ref(), b)
                };
                let found: Vec<&ClusterTrustBundle> = all.iter().filter(fits).map(AsRef::as_ref).collect();
                if found.is_empty() && !optional {
                    return Err("combination of signerName and labelSelector matched zero ClusterTrustBundles".into());
                }
                found
            }
        };
        Ok(normalize(chosen.iter().map(|b| b.spec.trust_bundle.as_str())))
    }

    fn start(&self) -> (Informer<ClusterTrustBundle>, Arc<InformerFactory>) {
        let factory = InformerFactory::new(self.client.clone());
        let informer = factory.informer::<ClusterTrustBundle>();
        let (users, wake) = (self.users.clone(), self.wake.clone());
        informer.on_event(move |_| {
            let uids: Vec<String> = users.lock().iter().cloned().collect();
            uids.iter().for_each(|uid| wake(uid));
        });
        (informer, factory)
    }

    /// Forgets a pod.
    pub fn release(&self, pod_uid: &str) {
        self.users.lock().remove(pod_uid);
    }
}

/// Whether a selector takes a bundle; none takes nothing, an empty one everything.
fn selected(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    bundle: &ClusterTrustBundle,
) -> bool {
    let Some(selector) = selector else { return false };
    let labels = bundle.metadata.labels.clone().unwrap_or_default();
    let exact = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    exact
        && selector.match_expressions.iter().flatten().all(|e| {
            let (value, values) = (labels.get(&e.key), e.values.clone().unwrap_or_default());
            match e.operator.as_str() {
                "In" => value.is_some_and(|v| values.contains(v)),
                "NotIn" => value.is_none_or(|v| !values.contains(v)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// The certificates of PEM texts, each once, in an order that says nothing about where they came from.
fn normalize<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut certificates = BTreeSet::new();
    for text in texts {
        let mut rest = text;
        while let Some((_, tail)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
            let Some((body, tail)) = tail.split_once("-----END CERTIFICATE-----") else { break };
            let compact: String = body.chars().filter(|c| !c.is_whitespace()).collect();
            certificates.extend(base64::engine::general_purpose::STANDARD.decode(compact));
            rest = tail;
        }
    }
    let block = |der: &Vec<u8>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|c| std::str::from_utf8(c).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_appear_once_and_without_comments() {
        let one = "comment\n-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
        let two = "-----BEGIN CERTIFICATE-----\nAA\nEC\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nAAED\n-----END CERTIFICATE-----\n";
        let got = normalize([one, two].into_iter());
        assert_eq!(got.matches("BEGIN").count(), 2, "{got}");
        assert!(!got.contains("comment") && normalize(["x"].into_iter()).is_empty());
    }
}
