//! Which names of a definition are accepted: no two definitions of a group share one.

use api::{Object, meta};
use resources::field::Fields;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The names accepted, and the conflict, when there is one: its reason and message.
pub fn accept(crd: &Object, all: &BTreeMap<String, Object>) -> (Value, Option<(&'static str, String)>) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    let group = crd.at("spec").text("group");
    for other in all.values().filter(|o| meta::name(o) != meta::name(crd) && o.at("spec").text("group") == group) {
        let names = other.at("status").at("acceptedNames");
        resources.extend([names.text("plural"), names.text("singular")]);
        resources.extend(names.texts("shortNames"));
        kinds.extend([names.text("kind"), names.text("listKind")]);
    }
    let (wanted, before) = (crd.at("spec").at("names"), crd.at("status").at("acceptedNames"));
    let (mut accepted, mut conflict) = (Map::new(), None);
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        let name = wanted.text(field);
        let clash = !name.is_empty() && name != before.text(field) && taken.contains(name);
        if field == "kind" {
            conflict = short_names(wanted, before, &resources).or(conflict);
        }
        if clash {
            // As upstream, the last conflict is told.
            conflict = Some((reason, format!("{name:?} is already in use")));
        }
        let kept = if clash { before.text(field) } else { name };
        if !kept.is_empty() || matches!(field, "plural" | "kind") {
            accepted.insert(field.into(), kept.into());
        }
    }
    let short = if short_names(wanted, before, &resources).is_none() { wanted } else { before };
    for (field, from) in [("shortNames", short), ("categories", wanted)] {
        if !from.list(field).is_empty() {
            accepted.insert(field.into(), from.at(field).clone());
        }
    }
    (accepted.into(), conflict)
}

/// The conflict of short names that are not one's own already.
fn short_names(wanted: &Value, before: &Value, taken: &BTreeSet<&str>) -> Option<(&'static str, String)> {
    let own = before.texts("shortNames");
    let clashes = wanted.texts("shortNames").into_iter().filter(|name| !own.contains(name) && taken.contains(name));
    let texts: Vec<_> = clashes.map(|name| format!("{name:?} is already in use")).collect();
    let text = match texts.as_slice() {
        [] => return None,
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Some(("ShortNamesConflict", text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_taken_once() {
        let first = json!({"metadata": {"name": "as.g"}, "spec": {"group": "g"},
            "status": {"acceptedNames": {"plural": "as", "kind": "A", "shortNames": ["x"]}}});
        let all = BTreeMap::from([("as.g".to_owned(), first)]);
        let check = |names: Value, reason: Option<&str>| {
            let crd = json!({"metadata": {"name": "bs.g"}, "spec": {"group": "g", "names": names}});
            assert_eq!(accept(&crd, &all).1.map(|(r, _)| r), reason);
        };
        check(json!({"plural": "bs", "kind": "B"}), None);
        check(json!({"plural": "bs", "kind": "A"}), Some("KindConflict"));
        check(json!({"plural": "bs", "kind": "B", "shortNames": ["x"]}), Some("ShortNamesConflict"));
    }
}
