//! What validating and mutating policies have in common: constraints, bindings, parameters.

use super::Attributes;
use super::conditions::Conditions;
use super::matching::{Rule, Selector, matching_version};
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::{ListOptions, Selection, Stored};
use api::{Object, Status};
use expression::Program;
use resources::admissionregistration::expressions::Compiler;
use resources::field::Fields;
use resources::metadata::selector_matches;
use serde_json::Value;
use std::sync::Arc;

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

impl Constraints {
    /// Reads them.
    pub fn new(of: &Value) -> Self {
        Self {
            rules: Rule::list(of.list("resourceRules")),
            excluded: Rule::list(of.list("excludeResourceRules")),
            equivalent: of.text("matchPolicy") == "Equivalent",
            namespaces: Selector::new(of.at("namespaceSelector")),
            objects: Selector::new(of.at("objectSelector")),
        }
    }

    /// The version of the resource that a request is looked at in, if at all.
    pub async fn matches<'r>(
        &self,
        server: &ApiServer,
        a: &Attributes<'r>,
        object: Option<&Object>,
        others: &'r [Arc<Resource>],
    ) -> Result<Option<&'r Resource>, Status> {
        if matching_version(&self.excluded, self.equivalent, a, others).is_some() {
            return Ok(None);
        }
        let found = match self.rules.is_empty() {
            true => Some(a.resource),
            false => matching_version(&self.rules, self.equivalent, a, others),
        };
        let Some(resource) = found.filter(|_| self.objects.matches_object(object, a.old)) else { return Ok(None) };
        Ok(self.namespaces.matches_namespace(server, a, object).await?.then_some(resource))
    }
}

/// The part of a policy that is the same in both kinds.
pub struct Policy {
    /// Name.
    pub name: String,
    /// Whether its own failures let requests go on.
    pub ignores_failures: bool,
    /// What requests it is about.
    pub constraints: Constraints,
    /// Under which conditions.
    pub conditions: Conditions,
    /// Its variables.
    pub variables: Vec<(String, Program)>,
    /// The kind of its parameters: API version and kind.
    pub param_kind: Option<(String, String)>,
}

impl Policy {
    /// Reads a policy; the compiler then knows its variables.
    pub fn parse(name: &str, spec: &Value) -> (Self, Compiler) {
        let kind = spec.at("paramKind");
        let param_kind = kind.is_object().then(|| (kind.text("apiVersion").to_owned(), kind.text("kind").to_owned()));
        let mut compiler = Compiler::new(param_kind.is_some()).with_variables();
        // Validation has compiled them all; one that no longer compiles is missing where it is used.
        let variables = spec.list("variables").iter().filter_map(|variable| {
            let name = variable.text("name");
            Some((name.to_owned(), compiler.variable(name, variable.text("expression")).ok()?))
        });
        let variables = variables.collect();
        let ignores_failures = spec.text("failurePolicy") == "Ignore";
        let policy = Self {
            name: name.to_owned(),
            ignores_failures,
            constraints: Constraints::new(spec.at("matchConstraints")),
            conditions: Conditions::new(spec.list("matchConditions"), &compiler, ignores_failures),
            variables,
            param_kind,
        };
        (policy, compiler)
    }

    /// The resource of its parameters; `None` when it has none.
    pub fn param_resource(&self, server: &ApiServer) -> Result<Option<Arc<Resource>>, String> {
        let Some((api_version, kind)) = &self.param_kind else { return Ok(None) };
        let version = api::GroupVersion::parse(api_version);
        let version = version.ok_or_else(|| {
            format!("failed to parse paramKind APIVersion: unexpected GroupVersion string: {api_version}")
        })?;
        let resource = server.registry().of_kind(&version.group, &version.version, kind);
        let shown = format!("{}/{}, Kind={kind}", version.group, version.version);
        resource.map(Some).ok_or_else(|| format!("failed to find resource referenced by paramKind: '{shown}'"))
    }
}

/// A binding of a policy.
pub struct Binding {
    /// Name.
    pub name: String,
    /// The policy.
    pub policy: String,
    /// What becomes of a failed validation: `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
    constraints: Option<Constraints>,
    param_ref: Value,
}

/// Reads a binding.
pub fn parse_binding(stored: &Stored) -> Option<Binding> {
    let object = stored.object().ok()?;
    let (spec, limits) = (object.at("spec"), object.at("spec").at("matchResources"));
    Some(Binding {
        name: stored.meta.name.clone(),
        policy: spec.text("policyName").to_owned(),
        actions: spec.texts("validationActions").into_iter().map(str::to_owned).collect(),
        constraints: limits.is_object().then(|| Constraints::new(limits)),
        param_ref: spec.at("paramRef").clone(),
    })
}

impl Binding {
    /// Whether it lets its policy look at a request.
    pub async fn matches(
        &self,
        server: &ApiServer,
        a: &Attributes<'_>,
        object: Option<&Object>,
        others: &[Arc<Resource>],
    ) -> Result<bool, Status> {
        match &self.constraints {
            None => Ok(true),
            Some(constraints) => constraints.matches(server, a, object, others).await.map(|found| found.is_some()),
        }
    }

    /// The parameters that its policy is evaluated with, once for each; one `None` where it takes none.
    pub async fn params(&self, a: &Attributes<'_>, kind: Option<&Resource>) -> Result<Vec<Option<Object>>, String> {
        let Some(resource) = kind.filter(|_| self.param_ref.is_object()) else { return Ok(vec![None]) };
        let of = &self.param_ref;
        let namespace = match (resource.namespaced, of.text("namespace"), a.namespace_name()) {
            (false, "", _) => "",
            (false, ..) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
            }
            (true, "", "") => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into()
                );
            }
            (true, "", of_request) => of_request,
            (true, named, _) => named,
        };
        let found = match of.text("name") {
            "" => selected(resource, namespace, of.at("selector")).await?,
            name => {
                let stored = resource.store.get(namespace, name).await.map_err(|e| e.message)?;
                stored.map(|s| resource.whole_object(&s)).transpose().map_err(|e| e.message)?.into_iter().collect()
            }
        };
        if found.is_empty() && of.text("parameterNotFoundAction") == "Deny" {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        Ok(found.into_iter().map(Some).collect())
    }
}

async fn selected(resource: &Resource, namespace: &str, selector: &Value) -> Result<Vec<Object>, String> {
    if selector.is_null() {
        return Err("one of name or selector must be provided".into());
    }
    let selection = Selection { namespace: namespace.to_owned(), ..Selection::default() };
    let list = resource.store.list(ListOptions { selection, ..ListOptions::default() }).await.map_err(|e| e.message)?;
    let mut found = Vec::new();
    for stored in &list.items {
        let labels: Value = stored.meta.labels.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
        if selector_matches(selector, &labels).unwrap_or(false) {
            found.push(resource.whole_object(stored).map_err(|e| e.message)?);
        }
    }
    Ok(found)
}

/// The namespace of a request's object, which policies see; a namespace has none.
pub async fn namespace(server: &ApiServer, a: &Attributes<'_>) -> Result<Option<Arc<Object>>, Status> {
    if a.is_about_namespaces() || a.namespace.is_empty() {
        return Ok(None);
    }
    super::namespace_lifecycle::find(server, a.namespace).await.map(Some)
}
