//! What the status of a workload may say: counts, and how they stand to each other.

use crate::field::{Errors, Fields, Path};
use api::{Cause, Object};

/// The counts of a kind. Counts that a kind does not have are zero and so in order.
pub struct Counts {
    /// Those that are not below zero, in the order of their errors.
    pub numbers: &'static [&'static str],
    /// Those of which there are at most `replicas`.
    pub parts: &'static [&'static str],
    /// What the error calls the count that `availableReplicas` may not exceed.
    pub ready: &'static str,
}

impl Counts {
    /// Errors of a changed status.
    pub fn check(&self, new: &Object, old: &Object) -> Vec<Cause> {
        let (mut errors, path, status) = (Errors::default(), Path::root("status"), new.at("status"));
        let of = |field: &str| status.int(field).unwrap_or(0);
        self.numbers.iter().for_each(|field| errors.non_negative(&path.field(field), of(field)));
        let collisions = |object: &Object| object.at("status").int("collisionCount");
        // One that was never given may not be lost, and one that is new is not compared.
        let forgets = match (collisions(new), collisions(old)) {
            (Some(now), Some(was)) => now < was,
            (now, was) => now.is_none() && was.is_some(),
        };
        let parts = self.parts.iter().map(|part| (*part, of(part) > of("replicas"), "status.replicas"));
        let ready = ("availableReplicas", of("availableReplicas") > of("readyReplicas"), self.ready);
        for (field, _, bound) in parts.chain([ready]).filter(|(_, exceeds, _)| *exceeds) {
            errors.invalid(&path.field(field), of(field), &format!("cannot be greater than {bound}"));
        }
        if forgets {
            errors.invalid(&path.field("collisionCount"), of("collisionCount"), "cannot be decremented");
        }
        errors.0
    }
}

/// Of replica sets and replication controllers.
pub const REPLICAS: Counts = Counts {
    numbers: &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ],
    parts: &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    ready: "readyReplicas",
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn counts_stand_in_order() {
        let check = |new: Value, want: &[&str]| {
            let old = json!({"status": {"collisionCount": 1}});
            let got = REPLICAS.check(&json!({"status": new}), &old);
            let got: Vec<String> = got.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        check(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1, "collisionCount": 1}), &[]);
        check(
            json!({"replicas": 1, "availableReplicas": 2}),
            &[
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ],
        );
    }
}
