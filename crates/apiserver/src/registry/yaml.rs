//! YAML as Go's `sigs.k8s.io/yaml` reads it: errors are worded like its parser's, numbers become what JSON would have.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use serde_saphyr::options::DuplicateKeyPolicy;
use std::borrow::Cow;
use std::fmt;

/// Parses YAML; errors are worded as Go's parser does, `yaml: line 1: did not find expected node content`.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    parse_with(bytes, DuplicateKeyPolicy::Error)
}

/// As [`parse`], but of a key that is given twice the last value counts; the first such key is told, in the
/// words for strict decoding.
pub fn parse_body(bytes: &[u8]) -> Result<(Value, Option<String>), String> {
    match parse(bytes) {
        Ok(value) => Ok((value, None)),
        Err(why) => match key_given_twice(&why) {
            Some(twice) => Ok((parse_with(bytes, DuplicateKeyPolicy::LastWins)?, Some(twice))),
            None => Err(why),
        },
    }
}

/// Most digits in a row: the parser takes 26 bytes of memory for each when it looks whether they are a number. No store
/// holds an object with more.
const DIGITS_MAX: usize = 2 << 20;

fn parse_with(bytes: &[u8], duplicates: DuplicateKeyPolicy) -> Result<Value, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: control characters are not allowed".to_owned())?;
    if bytes.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > DIGITS_MAX) {
        return Err(format!("yaml: more than {DIGITS_MAX} digits in a row"));
    }
    // Keys are nodes, too; aliases repeat what they stand for.
    let nodes = 2 * schema::Weight::MOST.values;
    let budget = serde_saphyr::budget! {
        max_nodes: nodes,
        max_events: 2 * nodes,
        max_total_scalar_bytes: 2 * crate::body::LIMIT,
        max_recorded_anchor_bytes: 2 * crate::body::LIMIT,
    };
    // As YAML 1.1 has it: the mode of a file is often written so.
    let options = serde_saphyr::options! { duplicate_keys: duplicates, budget: budget, legacy_octal_numbers: true };
    let mut text = Cow::Borrowed(first_document(text));
    for _ in 0..=BEYOND_MAX {
        match serde_saphyr::from_str_with_options::<Node>(&text, options.clone()) {
            Ok(Node(value)) => return Ok(value),
            Err(error) => text = quoted(&text, &error).ok_or_else(|| go_yaml_error(&text, &error))?.into(),
        }
    }
    Err(format!("yaml: more than {BEYOND_MAX} numbers are out of range"))
}

/// How many numbers that no float holds are read: each takes another look at the whole.
const BEYOND_MAX: usize = 2;

/// The document with quotes around a number that no float holds, if that is what the parser refuses: to Go it is text.
fn quoted(document: &str, error: &serde_saphyr::Error) -> Option<String> {
    let serde_saphyr::Error::NonFiniteFloat { value, location } = error.without_snippet() else { return None };
    let at = usize::try_from(location.span().byte_offset()?).ok()?;
    let rest = document.get(at..)?.strip_prefix(value.as_str())?;
    value.contains(|c: char| c.is_ascii_digit()).then(|| format!("{}'{value}'{rest}", &document[..at]))
}

/// The text before the second document; the rest is not looked at.
fn first_document(text: &str) -> &str {
    let marks = text.match_indices("\n---").map(|(at, _)| at);
    let mut seen = text.lines().next().is_none_or(|line| line.is_empty() || line.starts_with(['#', '%']));
    for at in marks {
        let after = text[at + 4..].chars().next();
        if !after.is_none_or(char::is_whitespace) {
            continue;
        }
        // Comments and directives may stand before the first mark.
        let nothing = text[..at].lines().all(|line| line.trim().is_empty() || line.starts_with(['#', '%']));
        if !(seen && nothing) {
            return &text[..=at];
        }
        seen = false;
    }
    text
}

/// `line 9: key "foo" already set in map`, if that is what the parser complains of.
fn key_given_twice(why: &str) -> Option<String> {
    let (line, rest) = why.strip_prefix("yaml: ")?.split_once(": duplicate mapping key: ")?;
    let key = rest.split_once(", set ").map_or(rest, |(key, _)| key);
    Some(format!("yaml: unmarshal errors:\n  {line}: key {key:?} already set in map"))
}

/// From `error: line 2 column 3: why` and a picture of the place.
fn go_yaml_error(document: &str, error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::NonFiniteFloat { value, .. } = error.without_snippet() {
        return match value.trim_start_matches('+') {
            number if number.contains(|c: char| c.is_ascii_digit()) => {
                format!("yaml: cannot decode !!str `{number}` as a !!float")
            }
            number if number.starts_with("-.") => "json: unsupported value: -Inf".into(),
            number if number.to_ascii_lowercase().ends_with("nan") => "json: unsupported value: NaN".into(),
            _ => "json: unsupported value: +Inf".into(),
        };
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let parsed = first.strip_prefix("line ").and_then(|rest| {
        let (line, rest) = rest.split_once(' ')?;
        Some((line.to_owned(), rest.split_once(": ")?.1.to_owned()))
    });
    match parsed {
        Some((line, why)) if why.starts_with("unclosed") => {
            let expected = match document.trim_end().chars().last() {
                Some('[' | '{' | ',' | ':') => "node content",
                _ if why.contains('{') => "',' or '}'",
                _ => "',' or ']'",
            };
            format!("yaml: line {line}: did not find expected {expected}")
        }
        Some((line, why)) if why.starts_with("tabs disallowed") => {
            format!("yaml: line {line}: found character that cannot start any token")
        }
        // Go's scanner names no line where the first is at fault.
        Some((line, why)) if line == "1" && why.starts_with("mapping values are not allowed") => {
            format!("yaml: {why}")
        }
        Some((line, why)) => format!("yaml: line {line}: {why}"),
        None => format!("yaml: {first}"),
    }
}

/// A value with whole numbers as integers, however they are written.
struct Node(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(Node)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // Below 2^63 the cast is exact.
        let whole = value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0;
        Ok(if whole { (value as i64).into() } else { value.into() })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Node(value))) = entries.next_entry::<String, Node>()? {
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_numbers_are_refused() {
        let digits = |count: usize| parse(format!("a: '{}'\n", "2".repeat(count)).as_bytes());
        assert!(digits(1 << 20).is_ok());
        assert_eq!(digits(DIGITS_MAX + 1), Err(format!("yaml: more than {DIGITS_MAX} digits in a row")));
    }

    #[test]
    fn numbers_are_those_of_go() {
        let check = |text: &str, want: Value| {
            assert_eq!(parse(format!("a: {text}").as_bytes()), Ok(json!({"a": want})), "{text}")
        };
        check("0644", json!(420));
        check("0o17", json!(15));
        check("1.0", json!(1));
        check("1e3", json!(1000));
        check("1.5", json!(1.5));
        check("18446744073709551615", json!(18_446_744_073_709_551_615_u64));
        check("1e400", json!("1e400"));
        check("[1, -1e400, 2]  # why", json!([1, "-1e400", 2]));
        check("'1e400'", json!("1e400"));
        let refused = |text: &str, want: &str| assert_eq!(parse(text.as_bytes()), Err(want.into()), "{text}");
        refused("a: .inf", "json: unsupported value: +Inf");
        refused("a: .nan", "json: unsupported value: NaN");
        refused("a: !!float 1e400", "yaml: cannot decode !!str `1e400` as a !!float");
        let many = "[".to_owned() + &"1e999,".repeat(20) + "]";
        refused(&many, &format!("yaml: more than {BEYOND_MAX} numbers are out of range"));
    }
}
