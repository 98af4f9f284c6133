//! An authorizer that is another server: `SubjectAccessReview`s sent to it, whose answers are kept for a while.

use super::conditions::Conditions;
use super::{Attributes, Decision};
use crate::authn::kubeconfig;
use crate::cache::TimedCache;
use crate::server::ApiServer;
use crate::webhook::{Call, ClientConfig};
use api::selector::{FieldSelector, LabelSelector};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Answers kept.
const ANSWERS: usize = 8192;
/// A request whose attributes are longer is not worth keeping.
const LONGEST: usize = 10_000;

/// What is decided when the webhook gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The authorizers after it are asked.
    NoOpinion,
    /// The request is denied.
    Deny,
}

/// Settings of one webhook.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kubeconfig file.
    pub kubeconfig: PathBuf,
    /// How long it may take.
    pub timeout: Duration,
    /// How long permissions are kept.
    pub authorized_ttl: Duration,
    /// How long refusals are kept.
    pub unauthorized_ttl: Duration,
    /// Version of `authorization.k8s.io` that it speaks.
    pub version: String,
    /// What is decided when it gives no answer.
    pub failure_policy: FailurePolicy,
    /// Expressions that must all hold for it to be asked.
    pub conditions: Vec<String>,
}

/// A webhook.
pub struct SubjectAccessReviews {
    client: Arc<ClientConfig>,
    settings: Settings,
    answers: TimedCache<Decision>,
    conditions: Conditions,
}

impl SubjectAccessReviews {
    /// A webhook; fails when its kubeconfig or an expression is of no use.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            client: Arc::new(kubeconfig::read(&settings.kubeconfig)?),
            conditions: Conditions::compile(&settings.conditions)?,
            answers: TimedCache::new(ANSWERS),
            settings: settings.clone(),
        })
    }

    /// What the webhook says, or has said.
    pub async fn decide(&self, server: &ApiServer, attributes: &Attributes<'_>) -> Decision {
        let spec = spec(attributes);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::default(),
            Err(why) => return self.failed(&why),
        }
        let text = spec.to_string();
        let key = pki::sha256_hex(text.as_bytes());
        if let Some(decision) = self.answers.get(&key) {
            return decision;
        }
        let status = match self.ask(server, spec).await {
            Ok(status) => status,
            Err(why) => {
                tracing::warn!(why, "an authorization webhook gave no answer");
                return self.failed(&why);
            }
        };
        let decision = match read(&status) {
            Ok(decision) => decision,
            Err(why) => return self.failed(&why),
        };
        if text.len() <= LONGEST {
            let ttl = if decision.allowed { self.settings.authorized_ttl } else { self.settings.unauthorized_ttl };
            self.answers.put(key, decision.clone(), ttl);
        }
        decision
    }

    async fn ask(&self, server: &ApiServer, mut spec: Value) -> Result<Value, String> {
        if self.settings.version == "v1beta1"
            && let Some(groups) = spec.as_object_mut().and_then(|s| s.remove("groups"))
        {
            spec["group"] = groups;
        }
        let version = format!("authorization.k8s.io/{}", self.settings.version);
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": version, "metadata": {},
            "spec": spec, "status": {"allowed": false}});
        let body = review.to_string().into();
        let call = Call { body, timeout: self.settings.timeout, announce: false, user_agent: "kube-apiserver" };
        let answer = server.webhooks().post(&self.client, call).await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| e.to_string())?;
        Ok(answer.get("status").cloned().unwrap_or_default())
    }

    fn failed(&self, why: &str) -> Decision {
        match self.settings.failure_policy {
            FailurePolicy::NoOpinion => Decision::no_opinion(why),
            FailurePolicy::Deny => Decision::deny(why),
        }
    }
}

fn read(status: &Value) -> Result<Decision, String> {
    let flag = |key: &str| status.get(key).and_then(Value::as_bool).unwrap_or(false);
    let reason = status.get("reason").and_then(Value::as_str).unwrap_or("");
    match (flag("denied"), flag("allowed")) {
        (true, true) => Err(format!("webhook subject access review returned both allow and deny response: {status}")),
        (true, false) => Ok(Decision::deny(reason)),
        (false, true) => Ok(Decision::allow(reason)),
        (false, false) => Ok(Decision::no_opinion(reason)),
    }
}

/// The `spec` of a review; members without content are left out.
fn spec(a: &Attributes<'_>) -> Value {
    let mut spec = json!({});
    let mut set = |key: &str, value: Value| {
        let empty = matches!(&value, Value::String(t) if t.is_empty())
            || matches!(&value, Value::Array(l) if l.is_empty())
            || matches!(&value, Value::Object(m) if m.is_empty());
        if !empty {
            spec[key] = value;
        }
    };
    if a.is_resource {
        let fields = [
            ("namespace", a.namespace),
            ("verb", a.verb),
            ("group", a.group),
            ("version", a.version),
            ("resource", a.resource),
            ("subresource", a.subresource),
            ("name", a.name),
        ];
        let fields = fields.into_iter().filter(|(_, v)| !v.is_empty());
        let mut resource: Value =
            fields.map(|(k, v)| (k.to_owned(), v.into())).collect::<serde_json::Map<_, _>>().into();
        if let Some(selector) = field_selector(a.field_selector) {
            resource["fieldSelector"] = selector;
        }
        if let Some(selector) = label_selector(a.label_selector) {
            resource["labelSelector"] = selector;
        }
        set("resourceAttributes", resource);
    } else {
        set("nonResourceAttributes", json!({"path": a.path, "verb": a.verb}));
    }
    set("user", a.user.name.as_str().into());
    set("uid", a.user.uid.as_str().into());
    set("groups", json!(a.user.groups));
    set("extra", json!(a.user.extra));
    spec
}

/// The requirements of a field selector that can be read; one that cannot is the handler's to refuse.
fn field_selector(raw: &str) -> Option<Value> {
    FieldSelector::parse(raw).ok()?;
    let requirement = |term: &str| {
        let (key, operator, value) = match (term.split_once("!="), term.split_once("==")) {
            (Some((key, value)), _) => (key, "NotIn", value),
            (None, Some((key, value))) => (key, "In", value),
            (None, None) => term.split_once('=').map(|(key, value)| (key, "In", value))?,
        };
        Some(json!({"key": key, "operator": operator, "values": [value]}))
    };
    let list: Vec<_> = raw.split(',').filter_map(requirement).collect();
    (!list.is_empty()).then(|| json!({"requirements": list}))
}

fn label_selector(raw: &str) -> Option<Value> {
    use api::selector::Requirement;
    let selector = LabelSelector::parse(raw).ok()?;
    let list: Vec<Value> = selector
        .0
        .iter()
        .map(|requirement| match requirement {
            Requirement::In(key, values) => json!({"key": key, "operator": "In", "values": values}),
            Requirement::NotIn(key, values) => json!({"key": key, "operator": "NotIn", "values": values}),
            Requirement::Exists(key) => json!({"key": key, "operator": "Exists"}),
            Requirement::NotExists(key) => json!({"key": key, "operator": "DoesNotExist"}),
            _ => Value::Null,
        })
        .filter(|r| !r.is_null())
        .collect();
    (!list.is_empty()).then(|| json!({"requirements": list}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::{UserInfo, service_account};
    use crate::query::Query;
    use crate::request_info::RequestInfo;
    use http::Method;

    #[test]
    fn reviews_say_what_is_asked() {
        let user = UserInfo { name: "u".into(), groups: service_account::groups("n"), ..UserInfo::default() };
        let query = Query::parse(Some("fieldSelector=spec.nodeName%3Da&labelSelector=x+in+(y)"));
        let info = RequestInfo::new(&Method::GET, "/api/v1/namespaces/n/pods", &query);
        let want = json!({"user": "u", "groups": ["system:serviceaccounts", "system:serviceaccounts:n"],
            "resourceAttributes": {"namespace": "n", "verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]}]},
                "labelSelector": {"requirements": [{"key": "x", "operator": "In", "values": ["y"]}]}}});
        assert_eq!(spec(&Attributes::of(&user, &info)), want);
    }

    #[test]
    fn answers_are_read() {
        let check = |status: Value, want: Option<Decision>| assert_eq!(read(&status).ok(), want, "{status}");
        check(json!({"allowed": true, "reason": "r"}), Some(Decision::allow("r")));
        check(json!({"allowed": false}), Some(Decision::no_opinion("")));
        check(json!({"denied": true, "reason": "r"}), Some(Decision::deny("r")));
        check(json!({"denied": true, "allowed": true}), None);
    }
}
