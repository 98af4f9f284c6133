//! Objects that mutations make: the name of each one's type is the path of the fields it is in, which the type
//! checker of expressions does not know.

use expression::{Map, Value};

/// As many parts are looked at; evaluation bounds what an expression costs, not what its value shares.
const MAX_PARTS: u32 = 1_000_000;

/// Checks what an expression made; JSON patches hold objects as values.
pub fn check(value: &Value<'_>) -> Result<(), String> {
    let mut walk = Walk { parts: MAX_PARTS, errors: Vec::new() };
    match value {
        Value::List(operations) => {
            for operation in operations.iter().flatten() {
                if let Value::Map(operation) = &operation
                    && let Ok(Some(value)) = operation.find("value")
                {
                    walk.from_root(&value);
                }
            }
        }
        object => walk.from_root(object),
    }
    if walk.errors.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", walk.errors.join("\n"))) }
}

struct Walk {
    parts: u32,
    errors: Vec<String>,
}

impl Walk {
    fn from_root(&mut self, value: &Value<'_>) {
        if let Value::Map(Map::Struct(object)) = value {
            self.visit(value, &object.name);
        }
    }

    fn visit(&mut self, value: &Value<'_>, path: &str) {
        let Some(parts) = self.parts.checked_sub(1) else { return };
        self.parts = parts;
        match value {
            Value::Map(Map::Struct(object)) => {
                if *object.name != *path {
                    self.errors.push(format!(
                        "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                        object.name
                    ));
                }
                for (field, value) in &object.fields {
                    self.visit(value, &format!("{path}.{field}"));
                }
            }
            Value::Map(Map::Values(entries) | Map::Domains(entries)) => entries.values().for_each(|value| self.visit(value, path)),
            Value::List(list) => list.iter().flatten().for_each(|value| self.visit(&value, path)),
            Value::Optional(Some(value)) => self.visit(value, path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expression::{Bindings, Env, compile};

    #[test]
    fn types_are_paths() {
        #[track_caller]
        fn verify(text: &str, want: Result<(), &str>) {
            let program = compile(text, &Env::new().with_mutation()).expect("an expression");
            let bindings = Bindings::new();
            let value = program.eval(&bindings, 1_000_000).value.expect("a value");
            assert_eq!(check(&value), want.map_err(str::to_owned), "{text}");
        }
        verify("Object{spec: Object.spec{list: [Object.spec.list{a: 1}]}}", Ok(()));
        let wrong = "type mismatch: unexpected type name \"Object.other\", expected \"Object.spec\", which matches field name path from root Object type";
        verify("Object{spec: Object.other{a: 1}}", Err(wrong));
        verify("[JSONPatch{op: 'add', path: '/x', value: Object.spec{a: 1}}]", Ok(()));
    }
}
