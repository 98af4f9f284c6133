//! Which webhooks and policies are called again because a later one changed the object.
//!
//! When something changes the object, everything that ran before and wants to know of changes is to run again,
//! once, in a second round of all mutating plugins.

use api::Object;
use std::collections::BTreeSet;

/// What one write remembers of its mutating rounds.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// Whether this is the second round.
    pub again: bool,
    /// Whether there is to be one.
    pub wanted: bool,
    /// Webhooks.
    pub webhooks: Callees,
    /// Policies.
    pub policies: Callees,
}

/// The callees of one plugin.
#[derive(Debug, Default)]
pub struct Callees {
    last_output: Option<Object>,
    invoked: BTreeSet<String>,
    reinvoke: BTreeSet<String>,
}

impl Callees {
    /// Begins a round: in the second one, a change made by other plugins calls everyone again.
    pub fn begin(&mut self, again: bool, object: &Object) {
        if again && self.last_output.as_ref() != Some(object) {
            self.require();
        }
    }

    /// Whether a callee is called in this round.
    pub fn is_due(&self, again: bool, id: &str) -> bool {
        !again || self.reinvoke.contains(id)
    }

    /// Everyone called so far is to be called again.
    pub fn require(&mut self) {
        self.reinvoke.append(&mut self.invoked);
    }

    /// A callee that wants to know of later changes has been called.
    pub fn called(&mut self, id: &str) {
        self.invoked.insert(id.to_owned());
    }

    /// Ends a round.
    pub fn end(&mut self, object: &Object) {
        self.last_output = Some(object.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn earlier_callees_are_called_again() {
        let mut callees = Callees::default();
        callees.begin(false, &json!(1));
        callees.called("a");
        callees.require();
        callees.called("b");
        callees.end(&json!(2));
        callees.begin(true, &json!(2));
        assert_eq!((callees.is_due(true, "a"), callees.is_due(true, "b")), (true, false));
        callees.begin(true, &json!(3));
        assert!(callees.is_due(true, "b"), "another plugin changed the object");
        assert!(!callees.is_due(true, "c"), "nobody is called for the first time in the second round");
    }
}
