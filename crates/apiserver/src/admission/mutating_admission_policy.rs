//! MutatingAdmissionPolicy: expressions change objects, by apply configurations and JSON patches.

use super::conditions::Matched;
use super::evaluation::{BUDGET, Compiled, Inputs, evaluate};
use super::json_patch::{self, Failure};
use super::matching::equivalents;
use super::mutating_admission_webhook::remember;
use super::mutation_types;
use super::policies::{Binding, Policy, namespace};
use super::versions::Version;
use super::webhooks::show;
use super::{Attributes, Plugin};
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::Stored;
use api::{Object, Status, meta};
use async_trait::async_trait;
use resources::admissionregistration::expressions::Gives;
use resources::field::Fields;
use serde_json::{Value, json};
use std::sync::Arc;

/// The plugin.
pub struct MutatingAdmissionPolicy;

/// A policy, compiled.
pub struct Mutating {
    policy: Policy,
    mutations: Vec<Mutation>,
    reinvoked: bool,
}

struct Mutation {
    form: Gives,
    expression: Compiled,
}

/// Compiles a policy.
pub fn parse(stored: &Stored) -> Option<Mutating> {
    let object = stored.object().ok()?;
    let spec = object.at("spec");
    let (policy, compiler) = Policy::parse(&stored.meta.name, spec);
    let mutation = |m: &Value| {
        let (field, form) = match m.text("patchType") {
            "JSONPatch" => ("jsonPatch", Gives::Patches),
            _ => ("applyConfiguration", Gives::Configuration),
        };
        Mutation { form, expression: Compiled::new(&compiler, m.at(field).text("expression").trim(), true, form) }
    };
    Some(Mutating {
        mutations: spec.list("mutations").iter().map(mutation).collect(),
        reinvoked: spec.text("reinvocationPolicy") == "IfNeeded",
        policy,
    })
}

/// A policy that is to look at a request, with one of its parameters.
struct Invocation<'a> {
    policy: &'a Mutating,
    binding: &'a Binding,
    resource: &'a Resource,
    params: Option<Object>,
}

impl Invocation<'_> {
    fn id(&self) -> String {
        let of = |o: &Object| format!("{}/{}", meta::namespace(o), meta::name(o));
        let params = self.params.as_ref().map(of).unwrap_or_default();
        format!("{}\n{}\n{params}", self.policy.policy.name, self.binding.name)
    }
}

/// What went wrong in policies whose failures count.
#[derive(Default)]
struct Refusals {
    messages: Vec<String>,
    reason: Option<&'static str>,
}

impl Refusals {
    fn add(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str, reason: Option<&'static str>) {
        if policy.ignores_failures {
            return;
        }
        if self.messages.is_empty() {
            self.reason = reason;
        }
        self.messages.push(match binding {
            Some(binding) => {
                format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name)
            }
            None => format!("policy {:?} denied request: {why}", policy.name),
        });
    }

    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.add(policy, binding, &format!("failed to configure {what}: {why}"), None);
    }

    fn status(self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(first) = self.messages.first() else { return Ok(()) };
        let mut status = a.forbidden("");
        status.message = first.clone();
        if let Some(reason) = self.reason {
            status.reason = reason.to_owned();
        }
        status.details["causes"] = self.messages.iter().map(|m| json!({"message": m})).collect();
        Err(status)
    }
}

#[async_trait]
impl Plugin for MutatingAdmissionPolicy {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        let policies = server.lives().mutating_policies.values();
        if policies.is_empty() || a.is_exempt() {
            return Ok(());
        }
        let bindings = server.lives().mutating_bindings.values();
        let others = equivalents(server, a);
        let (mut refusals, mut invocations) = (Refusals::default(), Vec::new());
        for policy in &policies {
            let bindings = bindings.iter().filter(|b| b.policy == policy.policy.name).map(|b| &**b);
            let bindings: Vec<&Binding> = bindings.collect();
            if !bindings.is_empty() {
                policy.invoke(server, a, object, (&bindings, &others), (&mut invocations, &mut refusals)).await;
            }
        }
        if !invocations.is_empty() {
            run(server, a, object, &invocations, &mut refusals).await?;
        }
        refusals.status(a)
    }
}

impl Mutating {
    /// Finds out with which bindings and parameters it is to look at a request.
    async fn invoke<'p>(
        &'p self,
        server: &ApiServer,
        a: &Attributes<'p>,
        object: &Object,
        (bindings, others): (&[&'p Binding], &'p [Arc<Resource>]),
        (invocations, refusals): (&mut Vec<Invocation<'p>>, &mut Refusals),
    ) {
        let policy = &self.policy;
        let resource = match policy.constraints.matches(server, a, Some(object), others).await {
            Ok(Some(resource)) => resource,
            Ok(None) => return,
            Err(status) => return refusals.misconfigured(policy, None, &status.message),
        };
        let param_resource = match policy.param_resource(server) {
            Ok(found) => found,
            Err(why) => return refusals.misconfigured(policy, None, &why),
        };
        for binding in bindings {
            match binding.matches(server, a, Some(object), others).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    refusals.misconfigured(policy, Some(binding), &status.message);
                    continue;
                }
            }
            match binding.params(a, param_resource.as_deref()).await {
                Ok(params) => {
                    let each = |params| Invocation { policy: self, binding, resource, params };
                    invocations.extend(params.into_iter().map(each));
                }
                Err(why) => refusals.misconfigured(policy, Some(binding), &why),
            }
        }
    }
}

/// Evaluates the policies one after the other, each on what the one before made of the object.
async fn run(
    server: &ApiServer,
    a: &Attributes<'_>,
    object: &mut Object,
    invocations: &[Invocation<'_>],
    refusals: &mut Refusals,
) -> Result<(), Status> {
    let again = remember(a, |r| {
        r.policies.begin(r.again, object);
        r.again
    });
    let namespace = namespace(server, a).await?;
    for invocation in invocations {
        let version = Version::new(a, invocation.resource);
        let mut shown = show(a, &version, Some(object)).await?;
        let policy = &invocation.policy.policy;
        let inputs = Inputs::new(server, a, (invocation.resource, &version.kind), &shown);
        let inputs = inputs.with_params(invocation.params.as_ref()).with_variables(&policy.variables);
        match policy.conditions.evaluate(&inputs) {
            Matched::Yes => {}
            Matched::No => continue,
            Matched::Failed(why) => {
                refusals.add(policy, Some(invocation.binding), &why, Some("Invalid"));
                continue;
            }
        }
        let id = invocation.id();
        if !remember(a, |r| r.policies.is_due(again, &id)) {
            continue;
        }
        let before = shown.object.clone();
        for mutation in &invocation.policy.mutations {
            let inputs = Inputs::new(server, a, (invocation.resource, &version.kind), &shown);
            let inputs = inputs.with_namespace(namespace.clone()).with_params(invocation.params.as_ref());
            match mutation.apply(a, &version, &inputs.with_variables(&policy.variables), shown.object.as_ref()) {
                Ok(mut mutated) => {
                    version.decode(a, &mut mutated)?;
                    shown.object = Some(mutated);
                }
                Err(why) => refusals.add(policy, Some(invocation.binding), &why, Some("Invalid")),
            }
        }
        let changed = shown.object != before;
        if let (true, Some(mutated)) = (changed, shown.object) {
            version.take_back(a, mutated, object).await?;
        }
        remember(a, |r| {
            if changed {
                r.policies.require();
                r.wanted = true;
            }
            if invocation.policy.reinvoked {
                r.policies.called(&id);
            }
        });
    }
    remember(a, |r| r.policies.end(object));
    Ok(())
}

impl Mutation {
    /// What it makes of an object.
    fn apply(
        &self,
        a: &Attributes<'_>,
        version: &Version<'_>,
        inputs: &Inputs<'_>,
        object: Option<&Object>,
    ) -> Result<Object, String> {
        let object = object.ok_or("there is no object to mutate")?;
        if let Err(why) = &self.expression.program {
            return Err(why.clone());
        }
        let (bindings, mut budget) = (inputs.bindings(), BUDGET);
        let value = evaluate(&self.expression, &bindings, &mut budget)??;
        mutation_types::check(&value)?;
        let made = value.to_json().map_err(|e| e.to_string())?;
        if self.form == Gives::Configuration {
            return version.merge(a, object, &made).map_err(|why| format!("error applying patch: {why}"));
        }
        match json_patch::apply(object, &made) {
            Ok(patched) => Ok(patched),
            // A test that fails means that nothing is to be changed.
            Err(Failure::Test(_)) => Ok(object.clone()),
            Err(Failure::Operation(why)) => Err(format!("JSON Patch: {why}")),
        }
    }
}
