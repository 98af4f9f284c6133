//! Service accounts.

use crate::field::{Fields, items_mut};
use crate::{Ctx, Strategy};
use crate::age;
use crate::columns::{AGE, NAME};
use api::Object;
use api::table::Column;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Service accounts.
pub struct ServiceAccount;

const COLUMNS: &[Column] = &[NAME, AGE];

impl Strategy for ServiceAccount {
    fn has_status(&self) -> bool {
        false
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
        let set = |object: &Object| api::meta::annotation(object, ENFORCE).is_some();
        let new = set(obj) && !old.is_some_and(set);
        let text = "prefer separate namespaces to isolate access to mounted secrets";
        new.then(|| format!("metadata.annotations[{ENFORCE}]: deprecated in v1.32+; {text}")).into_iter().collect()
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        names_of_secrets(obj);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, _old: &Object) {
        names_of_secrets(new);
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), age::since_creation(obj, now).into()]
    }
}

/// Secrets are of the account's own namespace: only their names are kept.
fn names_of_secrets(obj: &mut Object) {
    for secret in items_mut(obj, "secrets") {
        *secret = match secret.text("name") {
            "" => json!({}),
            name => json!({"name": name}),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_keep_their_names_alone() {
        let mut account = json!({"secrets": [{"name": "a", "namespace": "n"}, {"uid": "u"}]});
        names_of_secrets(&mut account);
        assert_eq!(account, json!({"secrets": [{"name": "a"}, {}]}));
    }
}
