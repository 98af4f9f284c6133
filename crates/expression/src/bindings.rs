//! What variables stand for during an evaluation.

use crate::error::EvalError;
use crate::limits::PER_CALL_LIMIT;
use crate::program::{Evaluation, Program};
use crate::value::Value;
use parking_lot::Mutex;

/// The values of variables, and the expressions behind `variables`.
#[derive(Debug, Default)]
pub struct Bindings<'a> {
    values: Vec<(&'a str, Value<'a>)>,
    composed: &'a [(String, Program)],
    results: Mutex<Vec<Option<Result<Value<'a>, EvalError>>>>,
}

impl<'a> Bindings<'a> {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a variable its value.
    #[must_use]
    pub fn set(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, value));
        self
    }

    /// Gives `variables` its fields: each is evaluated when it is first needed, and then remembered.
    #[must_use]
    pub fn composed(mut self, programs: &'a [(String, Program)]) -> Self {
        self.composed = programs;
        self.results = Mutex::new(vec![None; programs.len()]);
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The value of a field of `variables`, and what finding it cost just now.
    pub(crate) fn variable(&self, name: &str) -> (Result<Value<'a>, EvalError>, u64) {
        let Some(place) = self.composed.iter().position(|(known, _)| known == name) else {
            return (Err(EvalError::no_such_key(name)), 0);
        };
        // The lock is not held while the expression runs: it may need other variables.
        let known = self.results.lock().get(place).cloned().flatten();
        if let Some(known) = known {
            return (known, 0);
        }
        let Evaluation { value, cost } = self.composed[place].1.eval(self, PER_CALL_LIMIT);
        let value =
            value.map_err(|why| EvalError::new(format!("composited variable {name:?} fails to evaluate: {why}")));
        if let Some(slot) = self.results.lock().get_mut(place) {
            *slot = Some(value.clone());
        }
        (value, cost)
    }
}
