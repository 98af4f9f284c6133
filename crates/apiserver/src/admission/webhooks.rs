//! Webhooks of the mutating and validating configurations: parsed once a change, matched and called on writes.

use super::Attributes;
use super::conditions::{Conditions, Matched};
use super::evaluation::Inputs;
use super::matching::{Rule, Selector, matching_version};
use super::metrics;
use super::review::{self, Shown, Unusable, Verdict};
use super::versions::Version;
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::Stored;
use crate::webhook::{Call, ClientConfig, Error};
use api::{Object, Status};
use resources::admissionregistration::expressions::Compiler;
use resources::field::Fields;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const USER_AGENT: &str = "kube-apiserver-admission";

/// One webhook.
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// The configuration it belongs to.
    pub configuration: String,
    /// What distinguishes it from all others.
    pub id: String,
    /// Whether requests go on when it cannot be called.
    pub ignores_failures: bool,
    /// Whether it is called again after later changes.
    pub reinvoked: bool,
    rules: Vec<Rule>,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
    conditions: Conditions,
    client: Result<Arc<ClientConfig>, Error>,
    timeout: Duration,
    has_side_effects: bool,
    review_version: Option<&'static str>,
}

/// The webhooks of a configuration, in its order.
pub fn parse(stored: &Stored) -> Option<Vec<Webhook>> {
    let object = stored.object().ok()?;
    let mut seen: HashMap<String, usize> = HashMap::new();
    let hooks = object.list("webhooks").iter().map(|hook| {
        let count = seen.entry(hook.text("name").to_owned()).or_default();
        let id = format!("{}/{}/{count}", stored.meta.name, hook.text("name"));
        *count += 1;
        webhook(&stored.meta.name, id, hook)
    });
    Some(hooks.collect())
}

fn webhook(configuration: &str, id: String, hook: &Value) -> Webhook {
    let ignores_failures = hook.text("failurePolicy") == "Ignore";
    let seconds = hook.int("timeoutSeconds").and_then(|s| u64::try_from(s).ok()).unwrap_or(10);
    Webhook {
        name: hook.text("name").into(),
        configuration: configuration.into(),
        id,
        ignores_failures,
        reinvoked: hook.text("reinvocationPolicy") == "IfNeeded",
        rules: Rule::list(hook.list("rules")),
        equivalent: hook.text("matchPolicy") == "Equivalent",
        namespaces: Selector::new(hook.at("namespaceSelector")),
        objects: Selector::new(hook.at("objectSelector")),
        conditions: Conditions::new(hook.list("matchConditions"), &Compiler::new(false), ignores_failures),
        client: ClientConfig::parse(hook.at("clientConfig")).map(Arc::new),
        timeout: Duration::from_secs(seconds),
        has_side_effects: !matches!(hook.text("sideEffects"), "None" | "NoneOnDryRun"),
        review_version: hook.texts("admissionReviewVersions").into_iter().find_map(review::known_version),
    }
}

/// Why a webhook lets a request not go on.
#[derive(Debug)]
pub enum Failure {
    /// It could not be called, or its answer is of no use; the failure policy decides.
    Calling(String),
    /// It refused, or the server cannot go on.
    Refused(Status),
}

impl Webhook {
    /// The version of the resource that it wants to see, if it is to be called at all.
    pub async fn wants<'r>(
        &self,
        server: &ApiServer,
        a: &Attributes<'r>,
        object: Option<&Object>,
        others: &'r [Arc<Resource>],
    ) -> Result<Option<&'r Resource>, Status> {
        let Some(resource) = matching_version(&self.rules, self.equivalent, a, others) else { return Ok(None) };
        if !self.objects.matches_object(object, a.old) || !self.namespaces.matches_namespace(server, a, object).await? {
            return Ok(None);
        }
        if self.conditions.is_empty() {
            return Ok(Some(resource));
        }
        let version = Version::new(a, resource);
        let shown = show(a, &version, object).await?;
        let inputs = Inputs::new(server, a, (resource, &version.kind), &shown);
        match self.conditions.evaluate(&inputs) {
            Matched::Yes => Ok(Some(resource)),
            Matched::No => Ok(None),
            Matched::Failed(why) => Err(a.forbidden(&why)),
        }
    }

    /// Calls it; a verdict that refuses is a failure.
    pub async fn call(
        &self,
        server: &ApiServer,
        a: &Attributes<'_>,
        (resource, version): (&Resource, &Version<'_>),
        shown: &Shown,
        mutating: bool,
    ) -> Result<Verdict, Failure> {
        let begun = Instant::now();
        let outcome = self.ask(server, a, (resource, version), shown, mutating).await;
        metrics::webhook(a, self, if mutating { "admit" } else { "validating" }, &outcome, begun.elapsed());
        outcome
    }

    async fn ask(
        &self,
        server: &ApiServer,
        a: &Attributes<'_>,
        (resource, version): (&Resource, &Version<'_>),
        shown: &Shown,
        mutating: bool,
    ) -> Result<Verdict, Failure> {
        if a.dry_run && self.has_side_effects {
            let why = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Failure::Refused(Status::bad_request(why)));
        }
        let known = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        let Some(review_version) = self.review_version else {
            return Err(Failure::Calling(format!("could not create admission objects: {known}")));
        };
        let client = self.client.as_ref();
        let client = client.map_err(|e| Failure::Calling(format!("could not get REST client: {e}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let request = review::request(a, resource, &version.kind);
        let body = review::review(review_version, &uid, request, shown).to_string().into();
        let call = Call { body, timeout: self.timeout, announce: true, user_agent: USER_AGENT };
        let answer = server.webhooks().post(client, call).await;
        let answer = answer.map_err(|e| Failure::Calling(format!("failed to call webhook: {e}")))?;
        let verdict = review::verdict(review_version, &uid, mutating, &answer).map_err(|unusable| match unusable {
            Unusable::Undecodable(why) => Failure::Calling(format!("failed to call webhook: {why}")),
            Unusable::Invalid(why) => Failure::Calling(format!("received invalid webhook response: {why}")),
        })?;
        for (key, value) in &verdict.annotations {
            a.request.annotate(&format!("{}/{key}", self.name), value);
        }
        a.request.warn_all(verdict.warnings.clone());
        if verdict.allowed { Ok(verdict) } else { Err(Failure::Refused(review::refusal(&self.name, &verdict.result))) }
    }

    /// The error of a request that fails because the webhook could not be called.
    pub fn failed(&self, why: &str) -> Status {
        Status::internal(format!("failed calling webhook {:?}: {why}", self.name))
    }
}

/// The objects of a request in a version.
pub async fn show(a: &Attributes<'_>, version: &Version<'_>, object: Option<&Object>) -> Result<Shown, Status> {
    let mut shown = Shown { object: None, old: None };
    if let Some(object) = object {
        shown.object = Some(version.show(a, object).await?);
    }
    if let Some(old) = a.old {
        shown.old = Some(version.show(a, old).await?);
    }
    Ok(shown)
}
