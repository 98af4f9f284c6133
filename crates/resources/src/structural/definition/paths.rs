//! Simple paths into a schema: of selectable fields, and of the fields that rules blame.

use crate::field::{Errors, Fields, Path};
use serde_json::Value;

/// Most selectable fields of a version.
const SELECTABLE_MAX: usize = 8;

/// Finds what a path (`.spec.color`, `['x.y']`) names in a schema; gives it as field paths are printed, too.
pub(in super::super) fn find<'a>(root: &'a Value, text: &str, brackets: bool) -> Result<(String, &'a Value), String> {
    let (mut at, mut path) = (root, String::new());
    let mut tokens = Tokens(text);
    while let Some(token) = tokens.next() {
        let name = match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let token = tokens.next().ok_or("unexpected end of JSON path")?;
                let quoted = token.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
                let quoted = quoted.ok_or_else(|| format!("expected single quoted string but got {token}"))?;
                unescaped(quoted)?
            }
            "." => tokens.next().ok_or("unexpected end of JSON path")?.to_owned(),
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        at = step(at, &name, &mut path)?;
        if token == "[" {
            match tokens.next() {
                Some("]") => {}
                Some(other) => return Err(format!("expected ] but got {other}")),
                None => return Err("unexpected end of JSON path".into()),
            }
        }
    }
    Ok((path, at))
}

fn step<'a>(at: &'a Value, name: &str, path: &mut String) -> Result<&'a Value, String> {
    let missing = || "does not refer to a valid field".to_owned();
    if at.entries("properties").next().is_some() {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        return at.at("properties").get(name).ok_or_else(missing);
    }
    path.push_str(&format!("[{name}]"));
    at.get("additionalProperties").filter(|a| a.is_object()).ok_or_else(missing)
}

fn unescaped(text: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some(same @ ('\'' | '\\')) => same,
            Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
            None => '\\',
        });
    }
    Ok(out)
}

/// Dots, brackets, and what is between them; what is in single quotes is one token.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0;
        let first = text.chars().next()?;
        let end = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let bytes = text.as_bytes();
                let close = (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[*at - 1] != b'\\');
                close.map_or(text.len(), |at| at + 1)
            }
            _ => text.find(['.', '[', ']']).unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at(end);
        self.0 = rest;
        Some(token)
    }
}

/// Checks the selectable fields of a version.
pub(crate) fn selectable(errors: &mut Errors, version: &Value, path: &Path<'_>) {
    let root = version.at("schema").at("openAPIV3Schema");
    let mut seen: Vec<String> = Vec::new();
    for (i, field) in version.list("selectableFields").iter().enumerate() {
        let (item, text) = (path.index(i), field.text("jsonPath"));
        let at = item.field("jsonPath");
        if text.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let (found, schema) = match find(root, text, false) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&at, text, &format!("is an invalid path: {why}"));
                continue;
            }
        };
        if found.split(['.', '[']).next() == Some("metadata") {
            errors.invalid(&at, text, "must not point to fields in metadata");
        }
        if !matches!(schema.text("type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&at, text, why);
        }
        match seen.contains(&found) {
            true => errors.duplicate(&at, text),
            false => seen.push(found),
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errors.too_many(path, seen.len(), SELECTABLE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_found() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"x.y": {"type": "string"}, "a": {"type": "integer"}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "string"}}}}}});
        let check = |path: &str, want: Result<&str, &str>| {
            let found = find(&schema, path, true).map(|(path, _)| path);
            assert_eq!(found, want.map(str::to_owned).map_err(str::to_owned), "{path}");
        };
        check(".spec.a", Ok("spec.a"));
        check(".spec['x.y']", Ok("spec.x.y"));
        check(".map['k'].v", Ok("map[k].v"));
        check(".spec.nope", Err("does not refer to a valid field"));
        check("spec", Err("expected [ or . but got: spec"));
        check(".spec[0]", Err("expected single quoted string but got 0"));
        check(".", Err("unexpected end of JSON path"));
        assert_eq!(find(&schema, ".spec['a']", false).err(), Some("array notation is not allowed".into()));
    }
}
