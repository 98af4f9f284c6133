//! Expressions over claims and users.

use api::Cause;
use expression::limits::PER_CALL_LIMIT;
use expression::{Bindings, DeclType, Env, Evaluation, Program, Type, compile};
use serde_json::{Value, json};
use std::sync::Arc;

/// What an expression sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `claims`
    Claims,
    /// `user`
    User,
}

impl Input {
    fn name(self) -> &'static str {
        match self {
            Self::Claims => "claims",
            Self::User => "user",
        }
    }

    fn decl(self) -> Arc<DeclType> {
        let texts = || DeclType::list(DeclType::string());
        match self {
            Self::Claims => DeclType::map(DeclType::dynamic()),
            Self::User => {
                let fields = [
                    ("username", DeclType::string()),
                    ("uid", DeclType::string()),
                    ("groups", texts()),
                    ("extra", DeclType::map(texts())),
                ];
                DeclType::object("kubernetes.UserInfo", fields)
            }
        }
    }
}

/// A compiled expression, with the message of a condition.
pub struct Rule {
    text: String,
    message: String,
    program: Program,
    input: Input,
    decl: Arc<DeclType>,
}

impl Rule {
    /// Compiles an expression; `None` with a cause when it cannot be.
    pub fn compile(text: &str, message: &str, input: Input, path: &str, causes: &mut Vec<Cause>) -> Option<Self> {
        let decl = input.decl();
        match compile(text, &Env::new().variable(input.name(), decl.clone())) {
            Ok(program) => Some(Self { text: text.to_owned(), message: message.to_owned(), program, input, decl }),
            Err(error) => {
                causes.push(Cause::invalid(path, &json!(text), &error.to_string()));
                None
            }
        }
    }

    /// As [`Rule::compile`], for an expression that must be a condition.
    pub fn compile_condition(
        text: &str,
        message: &str,
        input: Input,
        path: &str,
        causes: &mut Vec<Cause>,
    ) -> Option<Self> {
        let rule = Self::compile(text, message, input, path, causes)?;
        if *rule.program.result_type() != Type::Bool {
            causes.push(Cause::invalid(path, &json!(text), "must evaluate to bool"));
            return None;
        }
        Some(rule)
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value for claims or a user.
    pub fn evaluate(&self, input: &Value) -> Result<Value, String> {
        let bindings = Bindings::new().set(self.input.name(), expression::Value::typed(input, &self.decl));
        let Evaluation { value, .. } = self.program.eval(&bindings, PER_CALL_LIMIT);
        let value = value.and_then(|value| value.to_json());
        value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))
    }

    /// Whether the condition holds; else why not.
    pub fn check(&self, input: &Value) -> Result<(), String> {
        match self.evaluate(input)?.as_bool() {
            Some(true) => Ok(()),
            Some(false) => Err(format!("validation expression '{}' failed: {}", self.text, self.message)),
            None => Err("validation expression must return a boolean".into()),
        }
    }
}

/// A text or a list of texts as a list; null and empty texts are nothing.
pub fn strings(value: &Value) -> Result<Vec<String>, String> {
    let odd = || "expression must return a string or a list of strings".to_owned();
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => {
            let texts: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            Ok(texts.ok_or_else(odd)?.into_iter().filter(|t| !t.is_empty()).collect())
        }
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_evaluated() {
        let claims = json!({"sub": "a", "roles": ["x", "y"], "n": {"b": true}});
        let check = |text: &str, want: Value| {
            let mut causes = Vec::new();
            let rule = Rule::compile(text, "", Input::Claims, "p", &mut causes).expect("compiles");
            assert_eq!(rule.evaluate(&claims).expect("value"), want, "{text}");
        };
        check("'u:' + claims.sub", json!("u:a"));
        check("claims.roles.map(r, 'g:' + r)", json!(["g:x", "g:y"]));
        check("claims.?email.orValue('none')", json!("none"));
        let user = json!({"username": "system:x", "groups": [], "uid": "", "extra": {}});
        let mut causes = Vec::new();
        let text = "!user.username.startsWith('system:')";
        let rule = Rule::compile_condition(text, "reserved", Input::User, "p", &mut causes).expect("compiles");
        let why = rule.check(&user).expect_err("fails");
        assert_eq!(why, format!("validation expression '{text}' failed: reserved"));
        assert!(Rule::compile_condition("user.username", "", Input::User, "p", &mut causes).is_none());
        assert_eq!(causes[0].message, "Invalid value: \"user.username\": must evaluate to bool");
        assert!(Rule::compile("user.", "", Input::User, "p", &mut causes).is_none());
    }
}
