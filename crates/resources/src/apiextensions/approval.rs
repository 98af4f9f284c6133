//! Groups of the community need its approval.

use crate::field::{Errors, Fields, Path};
use api::Object;

const NAME: &str = "api-approved.kubernetes.io";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

#[derive(PartialEq, Eq)]
enum State {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn state(obj: &Object) -> State {
    let value = api::meta::annotation(obj, NAME).unwrap_or("");
    let url = value.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    match value {
        "" => State::Missing,
        value if value.starts_with("unapproved") => State::Bypassed,
        _ if url => State::Approved,
        _ => State::Invalid,
    }
}

/// Checks the approval, unless it is what it was.
pub(super) fn check(errors: &mut Errors, new: &Object, old: Option<&Object>) {
    let group = new.at("spec").text("group");
    let protected = ["k8s.io", "kubernetes.io"];
    if !protected.iter().any(|p| group == *p || group.strip_suffix(p).is_some_and(|rest| rest.ends_with('.'))) {
        return;
    }
    let now = state(new);
    if old.is_some_and(|old| state(old) == now) {
        return;
    }
    let annotations = Path::root("metadata.annotations");
    let path = annotations.key(NAME);
    match now {
        State::Missing => {
            errors.required(&path, &format!("protected groups must have approval annotation {NAME:?}, {SEE}"));
        }
        State::Invalid => {
            let why = format!(
                "protected groups must have approval annotation {NAME:?} with either a URL or a reason starting with \"unapproved\", {SEE}"
            );
            errors.invalid(&path, api::meta::annotation(new, NAME).unwrap_or(""), &why);
        }
        State::Approved | State::Bypassed => {}
    }
}
