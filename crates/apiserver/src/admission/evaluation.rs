//! Evaluating the expressions of webhooks and policies.

use super::Attributes;
use super::authorizer::{self, ServerAuthorizer};
use super::review::{self, Shown};
use crate::registry::Resource;
use crate::server::ApiServer;
use api::{Gvk, Object};
use expression::library::authorizer as library;
use expression::{Bindings, Program, Value};
use resources::admissionregistration::expressions::{Compiler, Gives};
use serde_json::Value as Json;
use std::sync::Arc;

/// What the match conditions of one webhook or policy may cost.
pub const MATCH_BUDGET: u64 = expression::limits::RUNTIME_CEL_COST_BUDGET_MATCH_CONDITIONS;
/// What the expressions of one policy may cost.
pub const BUDGET: u64 = expression::limits::RUNTIME_CEL_COST_BUDGET;
const EXHAUSTED: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression, or why it is none.
pub struct Compiled {
    /// Its text.
    pub text: String,
    /// What it compiled to.
    pub program: Result<Program, String>,
}

impl Compiled {
    /// Compiles an expression.
    pub fn new(compiler: &Compiler, text: &str, authorizer: bool, gives: Gives) -> Self {
        Self { text: text.to_owned(), program: compiler.compile(text, authorizer, gives) }
    }
}

/// What the expressions see of a request.
pub struct Inputs<'a> {
    shown: &'a Shown,
    request: Json,
    namespace: Option<Arc<Object>>,
    params: Option<&'a Object>,
    variables: &'a [(String, Program)],
    authorizer: Value<'static>,
    request_resource: Value<'static>,
}

impl<'a> Inputs<'a> {
    /// The inputs of a request about `resource`, shown as `kind`.
    pub fn new(server: &ApiServer, a: &Attributes<'_>, (resource, kind): (&Resource, &Gvk), shown: &'a Shown) -> Self {
        let (asked, user) = (ServerAuthorizer::new(server), authorizer::user(&a.request.user));
        let about = library::Attributes {
            group: a.resource.group.clone(),
            resource: a.resource.resource.clone(),
            subresource: a.subresource.to_owned(),
            namespace: a.namespace_name().to_owned(),
            name: a.name.to_owned(),
            ..library::Attributes::default()
        };
        Self {
            shown,
            request: Json::Object(review::request(a, resource, kind)),
            namespace: None,
            params: None,
            variables: &[],
            request_resource: library::request_resource(asked.clone(), user.clone(), about),
            authorizer: library::authorizer(asked, user),
        }
    }

    /// With the namespace of the object.
    #[must_use]
    pub fn with_namespace(self, namespace: Option<Arc<Object>>) -> Self {
        Self { namespace, ..self }
    }

    /// With the parameters of a policy.
    #[must_use]
    pub fn with_params(self, params: Option<&'a Object>) -> Self {
        Self { params, ..self }
    }

    /// With the variables of a policy.
    #[must_use]
    pub fn with_variables(self, variables: &'a [(String, Program)]) -> Self {
        Self { variables, ..self }
    }

    /// The bindings; variables are evaluated when they are used, once for each set of bindings.
    pub fn bindings(&self) -> Bindings<'_> {
        let optional = |object: Option<&'a Object>| object.map_or(Value::Null, Value::json);
        Bindings::new()
            .set("object", optional(self.shown.object.as_ref()))
            .set("oldObject", optional(self.shown.old.as_ref()))
            .set("request", Value::json(&self.request))
            .set("namespaceObject", self.namespace.as_deref().map_or(Value::Null, Value::json))
            .set("params", optional(self.params))
            .set("authorizer", self.authorizer.clone())
            .set("authorizer.requestResource", self.request_resource.clone())
            .composed(self.variables)
    }
}

/// Evaluates an expression and takes its cost from the budget. The outer error ends the whole evaluation.
pub fn evaluate<'b>(
    compiled: &'b Compiled,
    bindings: &'b Bindings<'b>,
    budget: &mut u64,
) -> Result<Result<Value<'b>, String>, String> {
    let program = match &compiled.program {
        Ok(program) => program,
        Err(why) => return Ok(Err(format!("compilation error: {why}"))),
    };
    let evaluation = program.eval(bindings, expression::limits::PER_CALL_LIMIT);
    *budget = budget.checked_sub(evaluation.cost).ok_or_else(|| EXHAUSTED.to_owned())?;
    Ok(evaluation.value.map_err(|e| format!("expression '{}' resulted in error: {e}", compiled.text)))
}
