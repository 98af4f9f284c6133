//! Conditions under which an authorization webhook is asked: expressions over the `spec` of a review.

use expression::limits::PER_CALL_LIMIT;
use expression::{Bindings, DeclType, Env, Evaluation, Program, Type, compile};
use serde_json::Value;
use std::sync::Arc;

/// The conditions of a webhook.
pub struct Conditions {
    programs: Vec<(String, Program)>,
    decl: Arc<DeclType>,
}

impl Conditions {
    /// Compiles expressions.
    pub fn compile(expressions: &[String]) -> Result<Self, String> {
        let decl = spec();
        let env = Env::new().variable("request", decl.clone());
        let mut programs = Vec::new();
        for (at, text) in expressions.iter().enumerate() {
            let invalid = |why: &str| format!("matchConditions[{at}].expression: Invalid value: {text:?}: {why}");
            let program = compile(text, &env).map_err(|e| invalid(&e.to_string()))?;
            if *program.result_type() != Type::Bool {
                return Err(invalid("must evaluate to bool"));
            }
            programs.push((text.clone(), program));
        }
        Ok(Self { programs, decl })
    }

    /// Whether all hold. One that does not outweighs those that cannot be evaluated.
    pub fn hold(&self, spec: &Value) -> Result<bool, String> {
        let mut errors = Vec::new();
        for (text, program) in &self.programs {
            let bindings = Bindings::new().set("request", expression::Value::typed(spec, &self.decl));
            let Evaluation { value, .. } = program.eval(&bindings, PER_CALL_LIMIT);
            match value.map(|v| v.as_bool()) {
                Ok(Some(true)) => {}
                Ok(_) => return Ok(false),
                Err(error) => {
                    errors.push(format!("cel evaluation error: expression '{text}' resulted in error: {error}"))
                }
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(errors.join(", ")) }
    }
}

/// `authorization.k8s.io/v1` SubjectAccessReviewSpec.
fn spec() -> Arc<DeclType> {
    let (text, texts) = (DeclType::string, || DeclType::list(DeclType::string()));
    let object = |name: &str, fields: Vec<(&'static str, Arc<DeclType>)>| {
        DeclType::object(&format!("kubernetes.{name}"), fields)
    };
    let selector = |name: &str| {
        let requirement = vec![("key", text()), ("operator", text()), ("values", texts())];
        let requirements = DeclType::list(object(&format!("{name}Requirement"), requirement));
        object(name, vec![("rawSelector", text()), ("requirements", requirements)])
    };
    let mut resource = vec![
        ("fieldSelector", selector("FieldSelectorAttributes")),
        ("labelSelector", selector("LabelSelectorAttributes")),
    ];
    let texts_of = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    resource.extend(texts_of.map(|name| (name, text())));
    object(
        "SubjectAccessReviewSpec",
        vec![
            ("resourceAttributes", object("ResourceAttributes", resource)),
            ("nonResourceAttributes", object("NonResourceAttributes", vec![("path", text()), ("verb", text())])),
            ("user", text()),
            ("groups", texts()),
            ("extra", DeclType::map(texts())),
            ("uid", text()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_hold_or_not() {
        let spec =
            json!({"user": "ann", "groups": ["g"], "resourceAttributes": {"resource": "pods", "namespace": "n"}});
        let check = |expressions: &[&str], want: Option<bool>| {
            let expressions: Vec<_> = expressions.iter().map(|e| (*e).to_owned()).collect();
            let conditions = Conditions::compile(&expressions).expect("compiles");
            assert_eq!(conditions.hold(&spec).ok(), want, "{expressions:?}");
        };
        check(&[], Some(true));
        check(&["has(request.resourceAttributes)", "request.resourceAttributes.resource == 'pods'"], Some(true));
        check(&["request.user == 'bob'"], Some(false));
        check(&["'g' in request.groups", "request.nonResourceAttributes.path == '/x'"], None);
        check(&["request.nonResourceAttributes.path == '/x'", "request.user == 'bob'"], Some(false));
        assert!(Conditions::compile(&["request.nosuch == 1".to_owned()]).is_err());
        assert!(Conditions::compile(&["request.user".to_owned()]).is_err());
    }
}
