//! What a credential provider is told of a pod's service account (KEP-4412): a token, and annotations.

use super::keyring::Entry;
use super::pulls::{self, Holder, Source};
use crate::pod::PodExt;
use crate::tokens::TokenManager;
use api::k8s::core::v1::{Pod, ServiceAccount};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `tokenAttributes` of a provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenAttributes {
    service_account_token_audience: String,
    cache_type: String,
    require_service_account: Option<bool>,
    #[serde(default)]
    required_service_account_annotation_keys: Vec<String>,
    #[serde(default)]
    optional_service_account_annotation_keys: Vec<String>,
}

/// Whom a provider is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The token; empty: the pod has no service account, and the provider needs none.
    pub token: String,
    /// Annotations that the provider wants to know.
    pub annotations: BTreeMap<String, String>,
    /// What an answer is kept under, beside the image; empty: for all pods.
    pub key: String,
    /// The service account whose token it is.
    pub account: Option<Holder>,
}

impl Identity {
    /// Says of credentials whose they are.
    pub fn sign(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        if let Some(account) = &self.account {
            entries.iter_mut().for_each(|entry| entry.source = Source::ServiceAccount(account.clone()));
        }
        entries
    }
}

impl TokenAttributes {
    /// Refuses what cannot be meant.
    pub fn validate(&self) -> Result<(), String> {
        if self.service_account_token_audience.is_empty() {
            return Err("tokenAttributes.serviceAccountTokenAudience: Required value".into());
        }
        if !["ServiceAccount", "Token"].contains(&self.cache_type.as_str()) {
            return Err(format!("tokenAttributes.cacheType: Unsupported value: {:?}", self.cache_type));
        }
        let required = self.require_service_account.ok_or("tokenAttributes.requireServiceAccount: Required value")?;
        if !required && !self.required_service_account_annotation_keys.is_empty() {
            let why = "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set";
            return Err(format!("tokenAttributes.requiredServiceAccountAnnotationKeys: Forbidden: {why}"));
        }
        let (required, optional) =
            (&self.required_service_account_annotation_keys, &self.optional_service_account_annotation_keys);
        match required.iter().find(|key| optional.contains(key)) {
            Some(key) => Err(format!("annotation key {key:?} is both required and optional")),
            None => Ok(()),
        }
    }

    /// The identity of a pod; `None`: the provider is not for pods like this.
    pub async fn identity(
        &self,
        client: &kube::Client,
        tokens: &TokenManager,
        pod: &Pod,
    ) -> Result<Option<Identity>, String> {
        let name = pod.spec().service_account_name.clone().unwrap_or_default();
        if name.is_empty() {
            return Ok((self.require_service_account != Some(true)).then(Identity::default));
        }
        let api: kube::Api<ServiceAccount> = kube::Api::namespaced(client.clone(), pod.namespace());
        let account = api.get(&name).await.map_err(|e| crate::context::api_message(&e))?;
        let Some(annotations) = self.annotations(&account) else { return Ok(None) };
        let token = tokens.get(pod, &self.service_account_token_audience, None).await?.text;
        let key = match self.cache_type.as_str() {
            "Token" => hash(&json!(token)),
            _ => hash(&json!([pod.namespace(), name, account.metadata.uid, annotations])),
        };
        let uid = account.metadata.uid.unwrap_or_default();
        let holder = Holder { uid, namespace: pod.namespace().to_owned(), name, ..Holder::default() };
        Ok(Some(Identity { token, annotations, key, account: Some(holder) }))
    }

    /// The annotations that the provider asks for; `None` where a required one is missing.
    fn annotations(&self, account: &ServiceAccount) -> Option<BTreeMap<String, String>> {
        let own = account.metadata.annotations.clone().unwrap_or_default();
        if !self.required_service_account_annotation_keys.iter().all(|key| own.contains_key(key)) {
            return None;
        }
        let keys =
            self.required_service_account_annotation_keys.iter().chain(&self.optional_service_account_annotation_keys);
        Some(keys.filter_map(|key| Some((key.clone(), own.get(key)?.clone()))).collect())
    }
}

fn hash(value: &Value) -> String {
    pulls::hash(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(value: Value) -> TokenAttributes {
        serde_json::from_value(value).expect("attributes")
    }

    #[test]
    fn attributes_are_validated() {
        let check = |value: Value, expect: Result<(), &str>| {
            assert_eq!(attributes(value).validate(), expect.map_err(str::to_owned));
        };
        let base = |more: Value| {
            let mut value =
                json!({"serviceAccountTokenAudience": "a", "cacheType": "Token", "requireServiceAccount": true});
            value.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
            value
        };
        check(base(json!({})), Ok(()));
        check(base(json!({"cacheType": "x"})), Err("tokenAttributes.cacheType: Unsupported value: \"x\""));
        check(
            base(json!({"requireServiceAccount": null})),
            Err("tokenAttributes.requireServiceAccount: Required value"),
        );
        check(
            base(json!({"requiredServiceAccountAnnotationKeys": ["k"], "optionalServiceAccountAnnotationKeys": ["k"]})),
            Err("annotation key \"k\" is both required and optional"),
        );
    }

    #[test]
    fn annotations_are_chosen() {
        let attributes = attributes(json!({"serviceAccountTokenAudience": "a", "cacheType": "ServiceAccount",
            "requireServiceAccount": true, "requiredServiceAccountAnnotationKeys": ["r"],
            "optionalServiceAccountAnnotationKeys": ["o", "p"]}));
        let account = |annotations: Value| -> ServiceAccount {
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).expect("account")
        };
        assert_eq!(attributes.annotations(&account(json!({"o": "1"}))), None);
        let chosen = attributes.annotations(&account(json!({"r": "1", "o": "2", "x": "3"})));
        assert_eq!(chosen, Some([("o".into(), "2".into()), ("r".into(), "1".into())].into()));
    }
}
