//! Configurations that are merged without an owner: those of mutating admission policies.

use crate::Facts;
use crate::typed::Typed;
use serde_json::Value;

/// The live object with a configuration on top. Nothing owned as a whole may be in it: what it does not name
/// there would be lost.
pub fn merge_configuration(
    live: &Value,
    configuration: &Value,
    schema: &str,
    facts: &dyn Facts,
) -> Result<Value, String> {
    let typed = Typed::new(facts, schema);
    typed.validate(configuration).map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let atomics = typed.atomics(configuration);
    if !atomics.is_empty() {
        let list = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"));
    }
    typed.merge(live, configuration).map_err(|why| format!("failed to merge patch: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldFact, ListType, Shape};
    use serde_json::json;

    struct Pods;

    impl Facts for Pods {
        fn field(&self, _: &str, field: &str) -> Option<FieldFact> {
            let fact = |shape, schema: &'static str| FieldFact { shape, schema: schema.into(), ..FieldFact::default() };
            match field {
                "labels" => Some(fact(Shape::Map, "")),
                "args" => Some(fact(Shape::List, "")),
                "containers" => Some(FieldFact {
                    list_type: ListType::Map,
                    list_map_keys: vec!["name".into()],
                    ..fact(Shape::List, "c")
                }),
                "owner" => Some(FieldFact { atomic: true, ..fact(Shape::Struct, "o") }),
                "name" | "image" => Some(FieldFact::default()),
                _ => None,
            }
        }
    }

    #[test]
    fn configurations_are_merged() {
        let live = json!({"labels": {"a": "1"}, "containers": [{"name": "c", "image": "i"}]});
        let check = |configuration: Value, want: Result<Value, &str>| {
            let got = merge_configuration(&live, &configuration, "p", &Pods);
            assert_eq!(got, want.map_err(str::to_owned), "{configuration}");
        };
        check(
            json!({"labels": {"b": "2"}, "containers": [{"name": "d"}]}),
            Ok(json!({"labels": {"a": "1", "b": "2"}, "containers": [{"name": "c", "image": "i"}, {"name": "d"}]})),
        );
        let refused = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: ";
        check(json!({"args": ["x"]}), Err(&format!("{refused}.args")));
        check(json!({"containers": [{"name": "c", "owner": {}}]}), Err(&format!("{refused}.containers[0].owner")));
    }
}
