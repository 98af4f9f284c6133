//! Duplicate keys of a JSON document without a schema.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

const MAX: usize = 100;

/// `duplicate field "spec.x"` for every key given twice in one object, in document order, each
/// once; empty for a document that is not JSON.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut found = Found::default();
    let mut de = serde_json::Deserializer::from_slice(json);
    match Walk(&mut found).deserialize(&mut de) {
        Ok(()) => found.messages,
        Err(_) => Vec::new(),
    }
}

#[derive(Default)]
struct Found {
    path: String,
    messages: Vec<String>,
}

impl Found {
    fn duplicate(&mut self, key: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        let message = format!("duplicate field \"{}{dot}{key}\"", self.path);
        if self.messages.len() < MAX && !self.messages.contains(&message) {
            self.messages.push(message);
        }
    }
}

struct Walk<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let len = self.0.path.len();
        for i in 0.. {
            self.0.path.push_str(&format!("[{i}]"));
            let next = seq.next_element_seed(Walk(self.0))?;
            self.0.path.truncate(len);
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        let len = self.0.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                self.0.duplicate(&key);
            }
            if len > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            map.next_value_seed(Walk(self.0))?;
            self.0.path.truncate(len);
            seen.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_duplicates() {
        let table: [(&str, &[&str]); 4] = [
            (r#"{"a":1,"a":2,"a":3}"#, &["duplicate field \"a\""]),
            (r#"{"s":{"x":[{"k":1,"k":2}]}}"#, &["duplicate field \"s.x[0].k\""]),
            (r#"{"a":{"b":1},"b":1}"#, &[]),
            (r#"{"a":1,"a""#, &[]),
        ];
        for (json, want) in table {
            assert_eq!(duplicate_fields(json.as_bytes()), want, "{json}");
        }
    }
}
