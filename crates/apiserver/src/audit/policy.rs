//! The audit policy: a file that says which requests are written down, and how much of them.

use crate::authz::Attributes;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How much is written of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what and when.
    Metadata,
    /// The body of the request, too.
    Request,
    /// The body of the answer, too.
    RequestResponse,
}

/// When an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The sender is known.
    RequestReceived,
    /// The answer has begun, and goes on.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// What a policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much is written.
    pub level: Level,
    omit_stages: Vec<Stage>,
    /// Whether bodies go without managedFields.
    pub omit_managed_fields: bool,
}

impl Verdict {
    /// Whether nothing is written at a stage.
    pub fn omits(&self, stage: Stage) -> bool {
        self.omit_stages.contains(&stage)
    }
}

/// A policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "files have it; nothing reads it")]
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| format!("failed to read file path {shown:?}: {e}"))?;
        Self::parse(&text).map_err(|e| format!("loading audit policy file {shown}: {e}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let (version, kind) = (&policy.api_version, &policy.kind);
            return Err(format!("unknown group version or kind: {version}, Kind={kind}; use audit.k8s.io/v1, Policy"));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        policy.rules.iter().try_for_each(Rule::check)?;
        Ok(policy)
    }

    /// The first rule that matches decides.
    pub fn judge(&self, asked: &Attributes<'_>) -> Verdict {
        let verdict = Verdict {
            level: Level::None,
            omit_stages: self.omit_stages.clone(),
            omit_managed_fields: self.omit_managed_fields,
        };
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(asked)) else { return verdict };
        Verdict {
            level: rule.level,
            omit_stages: verdict.omit_stages.into_iter().chain(rule.omit_stages.iter().copied()).collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if !self.non_resource_urls.is_empty() && !(self.resources.is_empty() && self.namespaces.is_empty()) {
            return Err("rules cannot apply to both regular resources and non-resource URLs".into());
        }
        for url in &self.non_resource_urls {
            if url != "*" && (!url.starts_with('/') || url.trim_end_matches('*').contains('*')) {
                return Err(format!("non-resource URL {url:?} must begin with '/', with '*' at its end only"));
            }
        }
        let nameless = |r: &GroupResources| !r.resource_names.is_empty() && r.resources.is_empty();
        if self.resources.iter().any(nameless) {
            return Err("using resourceNames requires at least one resource".into());
        }
        Ok(())
    }

    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let user = asked.user;
        let among = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
        among(&self.users, &user.name)
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group)))
            && among(&self.verbs, asked.verb)
            && self.matches_target(asked)
    }

    fn matches_target(&self, asked: &Attributes<'_>) -> bool {
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return asked.is_resource
                && (self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == asked.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(asked)));
        }
        self.non_resource_urls.is_empty()
            || (!asked.is_resource && self.non_resource_urls.iter().any(|url| path_matches(url, asked.path)))
    }
}

impl GroupResources {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let names = &self.resource_names;
        (self.group == asked.group || self.group == "*")
            && (self.resources.is_empty() || self.resources.iter().any(|r| resource_matches(r, asked)))
            && (names.is_empty() || names.iter().any(|name| name == asked.name))
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`.
fn resource_matches(wanted: &str, asked: &Attributes<'_>) -> bool {
    wanted == "*"
        || wanted == asked.resource_with_subresource()
        || wanted.strip_prefix("*/").is_some_and(|sub| !sub.is_empty() && sub == asked.subresource)
        || wanted.strip_suffix("/*").is_some_and(|resource| resource == asked.resource)
}

fn path_matches(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::UserInfo;
    use crate::query::Query;
    use crate::request_info::RequestInfo;
    use http::Method;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: ["pods", "*/scale"]}]
  namespaces: ["a"]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Request
  userGroups: ["devs"]
  omitStages: [ResponseStarted]
- level: Metadata
  resources: [{group: "*", resources: ["secrets"], resourceNames: ["s"]}]
"#;

    #[test]
    fn the_first_rule_decides() {
        let policy = Policy::parse(POLICY).expect("policy");
        let check = |user: &str, groups: &[&str], method: Method, uri: &str, want: Level| {
            let user = UserInfo::new(user, groups);
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let info = RequestInfo::new(&method, path, &Query::parse(Some(query)));
            let verdict = policy.judge(&Attributes::of(&user, &info));
            assert_eq!(verdict.level, want, "{user:?} {uri}");
            verdict
        };
        check("system:kube-proxy", &[], Method::GET, "/api/v1/namespaces/a/pods?watch=1", Level::None);
        let full = check("x", &[], Method::GET, "/api/v1/namespaces/a/pods/p", Level::RequestResponse);
        assert!(full.omit_managed_fields && full.omits(Stage::RequestReceived) && !full.omits(Stage::ResponseStarted));
        check("x", &[], Method::GET, "/api/v1/namespaces/a/replicationcontrollers/r/scale", Level::RequestResponse);
        check("x", &[], Method::GET, "/api/v1/namespaces/b/pods/p", Level::None);
        check("x", &["devs"], Method::GET, "/healthz/ping", Level::None);
        let request = check("x", &["devs"], Method::GET, "/api/v1/namespaces/b/pods/p", Level::Request);
        assert!(request.omits(Stage::ResponseStarted) && !request.omit_managed_fields);
        check("x", &[], Method::GET, "/api/v1/namespaces/b/secrets/s", Level::Metadata);
        check("x", &[], Method::GET, "/api/v1/namespaces/b/secrets/t", Level::None);
    }

    #[test]
    fn useless_policies_are_refused() {
        for text in [
            "",
            "apiVersion: v1\nkind: Policy\nrules: [{level: None}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, odd: 1}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
