//! Flow schemas and priority levels as fairness uses them.

use crate::authn::UserInfo;
use crate::request_info::RequestInfo;
use crate::store::Stored;
use serde::Deserialize;

/// Stands for everything in a rule.
const ALL: &str = "*";

/// A `FlowSchema`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSchema {
    /// Name and UID.
    pub metadata: Metadata,
    /// What it matches and where that goes.
    pub spec: FlowSchemaSpec,
    /// What is known of its priority level.
    pub status: FlowSchemaStatus,
}

/// The metadata fairness reads.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// UID; empty for an object that is imagined.
    pub uid: String,
}

/// The spec of a flow schema.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSchemaSpec {
    /// The priority level.
    pub priority_level_configuration: Name,
    /// Schemas with a lower number are asked first.
    pub matching_precedence: i64,
    /// What makes flows of the matched requests.
    pub distinguisher_method: Option<Kind>,
    /// What it matches: any of these.
    pub rules: Vec<PolicyRules>,
}

/// A thing with a name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Name {
    /// Name.
    pub name: String,
    /// Namespace, where it has one.
    pub namespace: String,
}

/// A thing with a type.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Kind {
    /// Type.
    pub r#type: String,
}

/// Subjects, and what of their requests is meant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRules {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<NonResourceRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Name,
    group: Name,
    service_account: Name,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct NonResourceRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

/// The status of a flow schema.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FlowSchemaStatus {
    /// Conditions; `Dangling` is the only one.
    pub conditions: Vec<Condition>,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Type.
    pub r#type: String,
    /// `True` or `False`.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

/// A `PriorityLevelConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PriorityLevel {
    /// Name and UID.
    pub metadata: Metadata,
    /// Its limits.
    pub spec: PriorityLevelSpec,
}

/// The spec of a priority level.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PriorityLevelSpec {
    r#type: String,
    limited: Option<Limited>,
    exempt: Option<Shares>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shares {
    nominal_concurrency_shares: u32,
    lendable_percent: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    nominal_concurrency_shares: u32,
    lendable_percent: u32,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct LimitResponse {
    r#type: String,
    queuing: Option<Queuing>,
}

/// Queues of a priority level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Queuing {
    /// How many.
    pub queues: usize,
    /// How many of them a flow may use.
    pub hand_size: usize,
    /// Requests that may wait in one.
    pub queue_length_limit: usize,
}

/// What a level does with requests that find no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// There is always a seat.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait.
    Queue(Queuing),
}

impl PriorityLevel {
    /// The level of a stored object.
    pub fn parse(stored: &Stored) -> Option<Self> {
        serde_json::from_slice(&stored.json).ok()
    }

    /// What it does with requests that find no seat; `None` for a spec that contradicts itself.
    pub fn discipline(&self) -> Option<Discipline> {
        let spec = &self.spec;
        let exempt = self.metadata.name == "exempt";
        match (spec.r#type.as_str(), &spec.limited, &spec.exempt) {
            ("Exempt", None, Some(_)) if exempt => Some(Discipline::Exempt),
            ("Limited", Some(limited), None) if !exempt => {
                let response = &limited.limit_response;
                match (response.r#type.as_str(), response.queuing) {
                    ("Reject", None) => Some(Discipline::Reject),
                    ("Queue", Some(q)) => super::shuffle::deals(q.queues, q.hand_size).then_some(Discipline::Queue(q)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Its share of the server's seats.
    pub fn shares(&self) -> u32 {
        let limited = self.spec.limited.as_ref().map(|l| l.nominal_concurrency_shares);
        limited.or(self.spec.exempt.as_ref().map(|e| e.nominal_concurrency_shares)).unwrap_or(0)
    }

    /// Percent of its seats that others may use while it does not.
    pub fn lendable_percent(&self) -> u32 {
        let limited = self.spec.limited.as_ref().map(|l| l.lendable_percent);
        limited.or(self.spec.exempt.as_ref().map(|e| e.lendable_percent)).unwrap_or(0)
    }

    /// Percent of its seats that it may use of others'; `None`: any number.
    pub fn borrowing_limit_percent(&self) -> Option<u32> {
        self.spec.limited.as_ref().and_then(|l| l.borrowing_limit_percent)
    }
}

impl FlowSchema {
    /// The schema of a stored object.
    pub fn parse(stored: &Stored) -> Option<Self> {
        serde_json::from_slice(&stored.json).ok()
    }

    /// Whether a request belongs to it.
    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.spec.rules.iter().any(|rules| rules.match_request(user, info))
    }

    /// What the request's flow is told apart by.
    pub fn distinguisher<'a>(&self, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
        match self.spec.distinguisher_method.as_ref().map(|m| m.r#type.as_str()) {
            Some("ByUser") => &user.name,
            Some("ByNamespace") => &info.namespace,
            _ => "",
        }
    }
}

impl PolicyRules {
    fn match_request(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if info.is_resource {
                self.resource_rules.iter().any(|rule| rule.matches(info))
            } else {
                self.non_resource_rules.iter().any(|rule| rule.matches(info))
            }
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == ALL || self.user.name == user.name,
            "Group" => self.group.name == ALL || user.is_in(&self.group.name),
            "ServiceAccount" => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                let wanted = &self.service_account;
                account.is_some_and(|(ns, name)| ns == wanted.namespace && (wanted.name == ALL || name == wanted.name))
            }
            _ => false,
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        holds(&self.verbs, &info.verb)
            && holds(&self.resources, &info.resource_with_subresource())
            && holds(&self.api_groups, &info.group)
            && if info.namespace.is_empty() { self.cluster_scope } else { holds(&self.namespaces, &info.namespace) }
    }
}

impl NonResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        holds(&self.verbs, &info.verb) && self.urls.iter().any(|url| path_matches(url, &info.path))
    }
}

/// A path, or one below it.
fn path_matches(url: &str, path: &str) -> bool {
    let directory = url.strip_suffix('*').unwrap_or(url);
    let directory = directory.strip_suffix('/').unwrap_or(directory);
    url == ALL || url == path || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a list names a value or all; validation keeps `*` alone.
fn holds(list: &[String], value: &str) -> bool {
    matches!(list, [one] if one == ALL) || list.iter().any(|item| item == value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use http::Method;
    use serde_json::{Value, json};

    fn schema(rules: Value) -> FlowSchema {
        serde_json::from_value(json!({"spec": {"rules": [rules]}})).expect("schema")
    }

    #[test]
    fn rules_match_requests() {
        let users = [("ada", vec!["devs"]), ("system:serviceaccount:kube-system:gc", vec!["system:serviceaccounts"])];
        let check = |subject: Value, rule: Value, user: usize, method: &str, path: &str, want: bool| {
            let mut rules = json!({"subjects": [subject]});
            let kind = if rule.get("nonResourceURLs").is_some() { "nonResourceRules" } else { "resourceRules" };
            rules[kind] = json!([rule]);
            let user = UserInfo::new(users[user].0, &users[user].1);
            let method = Method::from_bytes(method.as_bytes()).expect("method");
            let info = RequestInfo::new(&method, path, &Query::default());
            assert_eq!(schema(rules.clone()).matches(&user, &info), want, "{rules} {path}");
        };
        let everything =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
        let pods = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]});
        let anyone = json!({"kind": "Group", "group": {"name": "*"}});
        let account = json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}});
        let health = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/logs/*"]});
        check(json!({"kind": "User", "user": {"name": "ada"}}), everything.clone(), 0, "GET", "/api/v1/nodes", true);
        check(json!({"kind": "User", "user": {"name": "bob"}}), everything.clone(), 0, "GET", "/api/v1/nodes", false);
        check(json!({"kind": "Group", "group": {"name": "devs"}}), everything.clone(), 0, "GET", "/api/v1/nodes", true);
        check(account.clone(), everything.clone(), 1, "GET", "/api/v1/nodes", true);
        check(account, everything.clone(), 0, "GET", "/api/v1/nodes", false);
        check(anyone.clone(), everything, 0, "GET", "/healthz", false);
        check(anyone.clone(), pods.clone(), 0, "GET", "/api/v1/namespaces/a/pods", true);
        check(anyone.clone(), pods.clone(), 0, "GET", "/api/v1/namespaces/b/pods", false);
        check(anyone.clone(), pods.clone(), 0, "GET", "/api/v1/pods", false);
        check(anyone.clone(), pods, 0, "GET", "/api/v1/namespaces/a/pods/p/log", false);
        check(anyone.clone(), health.clone(), 0, "GET", "/healthz", true);
        check(anyone.clone(), health.clone(), 0, "GET", "/healthz/ping", true);
        check(anyone.clone(), health.clone(), 0, "GET", "/healthzx", false);
        check(anyone, health, 0, "GET", "/logs/x", true);
    }

    #[test]
    fn broken_levels_are_told() {
        let check = |name: &str, spec: Value, want: Option<Discipline>| {
            let level: PriorityLevel =
                serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("level");
            assert_eq!(level.discipline(), want, "{spec}");
        };
        let queue = |queues: usize, hand_size: usize| {
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand_size, "queueLengthLimit": 5}}}})
        };
        let good = Queuing { queues: 8, hand_size: 2, queue_length_limit: 5 };
        check("a", queue(8, 2), Some(Discipline::Queue(good)));
        check("a", queue(2, 8), None);
        check("exempt", queue(8, 2), None);
        check("exempt", json!({"type": "Exempt", "exempt": {}}), Some(Discipline::Exempt));
        check("a", json!({"type": "Exempt", "exempt": {}}), None);
        check(
            "a",
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}),
            Some(Discipline::Reject),
        );
    }
}
