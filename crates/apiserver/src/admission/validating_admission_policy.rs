//! ValidatingAdmissionPolicy: expressions refuse objects, warn of them, or note them in the audit log.

use super::conditions::Matched;
use super::evaluation::{BUDGET, Compiled, Inputs, evaluate};
use super::matching::equivalents;
use super::policies::{Binding, Policy, namespace};
use super::versions::Version;
use super::webhooks::show;
use super::{Attributes, Plugin};
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::Stored;
use api::{Object, Status};
use async_trait::async_trait;
use resources::admissionregistration::expressions::Gives;
use resources::field::Fields;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest message that an expression may make.
const MAX_MESSAGE: usize = 5 * 1024;
/// The longest value of an audit annotation.
const MAX_ANNOTATION: usize = 10 * 1024;

/// The plugin.
pub struct ValidatingAdmissionPolicy;

/// A policy, compiled.
pub struct Validating {
    policy: Policy,
    validations: Vec<Validation>,
    annotations: Vec<(String, Compiled)>,
}

struct Validation {
    expression: Compiled,
    message: String,
    message_expression: Option<Compiled>,
    reason: String,
}

/// Compiles a policy.
pub fn parse(stored: &Stored) -> Option<Validating> {
    let object = stored.object().ok()?;
    let spec = object.at("spec");
    let (policy, compiler) = Policy::parse(&stored.meta.name, spec);
    let validation = |v: &Value| Validation {
        expression: Compiled::new(&compiler, v.text("expression"), true, Gives::Bool),
        message: v.text("message").trim().to_owned(),
        message_expression: Some(v.text("messageExpression"))
            .filter(|text| !text.is_empty())
            .map(|text| Compiled::new(&compiler, text, false, Gives::Text)),
        reason: v.text("reason").to_owned(),
    };
    let annotation = |a: &Value| {
        let expression = Compiled::new(&compiler, a.text("valueExpression"), true, Gives::TextOrNull);
        (a.text("key").to_owned(), expression)
    };
    Some(Validating {
        validations: spec.list("validations").iter().map(validation).collect(),
        annotations: spec.list("auditAnnotations").iter().map(annotation).collect(),
        policy,
    })
}

/// A validation that failed.
struct Failed {
    index: usize,
    message: String,
    reason: String,
}

/// What came of one evaluation.
#[derive(Default)]
struct Outcome {
    failed: Vec<Failed>,
    /// Audit annotations.
    notes: Vec<(String, String)>,
    /// Audit annotations that could not be made.
    errors: Vec<String>,
}

/// What became of a request.
#[derive(Default)]
struct Decisions {
    denied: Option<(String, String)>,
}

impl Decisions {
    /// The first refusal counts.
    fn deny(&mut self, policy: &Policy, binding: Option<&Binding>, message: &str, reason: &str) {
        let who = match binding {
            Some(binding) => format!("ValidatingAdmissionPolicy '{}' with binding '{}'", policy.name, binding.name),
            None => format!("ValidatingAdmissionPolicy '{}'", policy.name),
        };
        self.denied.get_or_insert_with(|| (format!("{who} denied request: {message}"), reason.to_owned()));
    }

    /// A policy that cannot be evaluated refuses, unless its failures are ignored.
    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if !policy.ignores_failures {
            let what = if binding.is_some() { "binding" } else { "policy" };
            self.deny(policy, binding, &format!("failed to configure {what}: {why}"), "");
        }
    }

    fn status(self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some((message, reason)) = self.denied else { return Ok(()) };
        let (reason, code) = match reason.as_str() {
            "Forbidden" => ("Forbidden", 403),
            "Unauthorized" => ("Unauthorized", 401),
            "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
            _ => ("Invalid", 422),
        };
        let mut status = a.forbidden(&message);
        (status.reason, status.code) = (reason.to_owned(), code);
        status.details["causes"] = json!([{"message": message}]);
        Err(status)
    }
}

#[async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let policies = server.lives().validating_policies.values();
        if policies.is_empty() || a.is_exempt() {
            return Ok(());
        }
        let bindings = server.lives().validating_bindings.values();
        let others = equivalents(server, a);
        let mut decisions = Decisions::default();
        for policy in &policies {
            let bindings = bindings.iter().filter(|b| b.policy == policy.policy.name).map(|b| &**b);
            let bindings: Vec<&Binding> = bindings.collect();
            if !bindings.is_empty() {
                policy.decide(server, a, object, (&bindings, &others), &mut decisions).await?;
            }
        }
        decisions.status(a)
    }
}

impl Validating {
    async fn decide(
        &self,
        server: &ApiServer,
        a: &Attributes<'_>,
        object: Option<&Object>,
        (bindings, others): (&[&Binding], &[Arc<Resource>]),
        decisions: &mut Decisions,
    ) -> Result<(), Status> {
        let policy = &self.policy;
        let resource = match policy.constraints.matches(server, a, object, others).await {
            Ok(Some(resource)) => resource,
            Ok(None) => return Ok(()),
            Err(status) => {
                decisions.misconfigured(policy, None, &status.message);
                return Ok(());
            }
        };
        let param_resource = match policy.param_resource(server) {
            Ok(found) => found,
            Err(why) => {
                decisions.misconfigured(policy, None, &why);
                return Ok(());
            }
        };
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in bindings {
            match binding.matches(server, a, object, others).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    decisions.misconfigured(policy, Some(binding), &status.message);
                    continue;
                }
            }
            let params = match binding.params(a, param_resource.as_deref()).await {
                Ok(params) => params,
                Err(why) => {
                    decisions.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            };
            let namespace = namespace(server, a).await?;
            for params in &params {
                let version = Version::new(a, resource);
                let shown = show(a, &version, object).await?;
                let inputs = Inputs::new(server, a, (resource, &version.kind), &shown);
                let inputs = inputs.with_namespace(namespace.clone()).with_params(params.as_ref());
                let outcome = self.evaluate(&inputs.with_variables(&policy.variables));
                self.act(a, binding, outcome, decisions, &mut notes);
            }
        }
        for (key, values) in notes {
            a.request.annotate(&format!("{}/{key}", policy.name), values.join(", "));
        }
        Ok(())
    }

    /// Does what the binding wants done.
    fn act(
        &self,
        a: &Attributes<'_>,
        binding: &Binding,
        outcome: Outcome,
        decisions: &mut Decisions,
        notes: &mut BTreeMap<String, Vec<String>>,
    ) {
        let policy = &self.policy;
        for failed in &outcome.failed {
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => decisions.deny(policy, Some(binding), &failed.message, &failed.reason),
                    "Warn" => a.request.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, failed.message
                    )),
                    _ => note_failure(a, policy, binding, failed),
                }
            }
        }
        for why in &outcome.errors {
            decisions.deny(policy, Some(binding), why, "");
        }
        for (key, mut value) in outcome.notes {
            value.truncate(value.floor_char_boundary(MAX_ANNOTATION));
            let values = notes.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn evaluate(&self, inputs: &Inputs<'_>) -> Outcome {
        match self.policy.conditions.evaluate(inputs) {
            Matched::Yes => {}
            Matched::No => return Outcome::default(),
            Matched::Failed(why) => return self.errored(why),
        }
        let (bindings, mut budget) = (inputs.bindings(), BUDGET);
        let mut verdicts = Vec::new();
        for validation in &self.validations {
            match evaluate(&validation.expression, &bindings, &mut budget) {
                Ok(verdict) => verdicts.push(verdict.map(|v| v.as_bool() == Some(true))),
                Err(exhausted) => return self.errored(exhausted),
            }
        }
        let messages = self.messages(inputs, &verdicts, budget);
        let mut outcome = Outcome::default();
        for (index, (validation, verdict)) in self.validations.iter().zip(verdicts).enumerate() {
            let message = messages.as_ref().map(|list| list.get(index).cloned().flatten());
            match (verdict, message) {
                (Err(why), _) => outcome.failed.extend(self.failure(index, why)),
                (_, Err(why)) => outcome.failed.extend(self.failure(index, format!("failed messageExpression: {why}"))),
                (Ok(true), _) => {}
                (Ok(false), Ok(made)) => {
                    let reason = validation.reason.clone();
                    outcome.failed.push(Failed { index, message: validation.message(made), reason });
                }
            }
        }
        self.note(inputs, &mut outcome);
        outcome
    }

    /// The messages that expressions make; all of them are evaluated, as upstream does.
    fn messages(
        &self,
        inputs: &Inputs<'_>,
        verdicts: &[Result<bool, String>],
        mut budget: u64,
    ) -> Result<Vec<Option<String>>, String> {
        if verdicts.iter().all(|v| *v == Ok(true)) {
            // Nobody will read them.
            return Ok(Vec::new());
        }
        let bindings = inputs.bindings();
        let mut messages = Vec::new();
        for validation in &self.validations {
            messages.push(match &validation.message_expression {
                None => None,
                Some(expression) => {
                    let made = evaluate(expression, &bindings, &mut budget)?;
                    made.ok().and_then(|value| value.as_str().map(|text| text.trim().to_owned()))
                }
            });
        }
        Ok(messages)
    }

    fn note(&self, inputs: &Inputs<'_>, outcome: &mut Outcome) {
        let (bindings, mut budget) = (inputs.bindings(), BUDGET);
        for (key, expression) in &self.annotations {
            match evaluate(expression, &bindings, &mut budget) {
                Err(exhausted) => {
                    *outcome = self.errored(exhausted);
                    return;
                }
                Ok(Err(why)) if !self.policy.ignores_failures => outcome.errors.push(why),
                Ok(Err(_)) => {}
                Ok(Ok(value)) => {
                    let text = value.as_str().unwrap_or("").trim();
                    if !text.is_empty() {
                        outcome.notes.push((key.clone(), text.to_owned()));
                    }
                }
            }
        }
    }

    /// A validation that could not be evaluated counts as failed, unless failures are ignored.
    fn failure(&self, index: usize, message: String) -> Option<Failed> {
        (!self.policy.ignores_failures).then(|| Failed { index, message, reason: String::new() })
    }

    fn errored(&self, why: String) -> Outcome {
        Outcome { failed: self.failure(0, why).into_iter().collect(), ..Outcome::default() }
    }
}

impl Validation {
    /// What its failure says: what its expression made, else its text, else the expression.
    fn message(&self, made: Option<String>) -> String {
        let made = made.filter(|text| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n'));
        match (made, self.message.as_str()) {
            (Some(made), _) => made,
            (None, "") => format!("failed expression: {}", self.expression.text.trim()),
            (None, message) => message.to_owned(),
        }
    }
}

fn note_failure(a: &Attributes<'_>, policy: &Policy, binding: &Binding, failed: &Failed) {
    let facts = json!([{"message": failed.message, "policy": policy.name, "binding": binding.name,
        "expressionIndex": failed.index, "validationActions": binding.actions}]);
    a.request.annotate("validation.policy.admission.k8s.io/validation_failure", facts.to_string());
}
