//! Match conditions of webhooks and policies.

use super::evaluation::{Compiled, Inputs, MATCH_BUDGET, evaluate};
use resources::admissionregistration::expressions::{Compiler, Gives};
use resources::field::Fields;
use serde_json::Value;

/// The conditions under which a webhook or policy is about a request.
pub struct Conditions {
    list: Vec<Compiled>,
    ignores_failures: bool,
}

/// Whether all conditions are met.
#[derive(Debug, PartialEq)]
pub enum Matched {
    /// They are.
    Yes,
    /// One is not.
    No,
    /// That could not be found out, and such a failure counts.
    Failed(String),
}

impl Conditions {
    /// Compiles a list of conditions.
    pub fn new(list: &[Value], compiler: &Compiler, ignores_failures: bool) -> Self {
        let compile = |c: &Value| Compiled::new(compiler, c.text("expression"), true, Gives::Bool);
        Self { list: list.iter().map(compile).collect(), ignores_failures }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a request meets them: a condition that is not met counts more than one that fails.
    pub fn evaluate(&self, inputs: &Inputs<'_>) -> Matched {
        let (bindings, mut budget, mut failures) = (inputs.bindings(), MATCH_BUDGET, Vec::new());
        for condition in &self.list {
            match evaluate(condition, &bindings, &mut budget) {
                Err(exhausted) => return self.failed(exhausted),
                Ok(Err(why)) => failures.push(why),
                Ok(Ok(value)) if value.as_bool() == Some(false) => return Matched::No,
                Ok(Ok(_)) => {}
            }
        }
        match failures.as_slice() {
            [] => Matched::Yes,
            [one] => self.failed(one.clone()),
            several => self.failed(format!("[{}]", several.join(", "))),
        }
    }

    fn failed(&self, why: String) -> Matched {
        if self.ignores_failures { Matched::No } else { Matched::Failed(why) }
    }
}
