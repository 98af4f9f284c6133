//! The part of JSONPath that printer columns use: fields, indexes, `[*]` and filters on one field.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter { path: Vec<String>, equal: bool, value: String },
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Parses `.status.conditions[?(@.type=="Ready")].status`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let end = closing(inside)?;
                steps.push(bracket(&inside[..end])?);
                rest = &inside[end + 1..];
            } else {
                let (name, after) = field(rest.strip_prefix('.')?);
                match name.as_str() {
                    "" => {}
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// The first value of the path.
    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found.first().copied()
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(list)) => {
                let at = if *at < 0 { *at + i64::try_from(list.len()).unwrap_or(0) } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Filter { path, equal, value: want }, Value::Array(list)) => {
                let holds = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |at, name| at.get(name));
                    let found = found.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                    (found.as_deref() == Some(want)) == *equal
                };
                list.iter().filter(holds).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The bracket that ends what began, quotes skipped.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (None, ']') => return Some(at),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

/// A name up to the next dot or bracket; a backslash keeps what follows.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

fn bracket(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(quoted) = unquoted(inside) {
        return Some(Step::Field(quoted));
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        let (left, equal, right) = match (condition.split_once("=="), condition.split_once("!=")) {
            (Some((left, right)), _) => (left, true, right),
            (_, Some((left, right))) => (left, false, right),
            _ => return None,
        };
        let path = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let right = right.trim();
        return Some(Step::Filter { path, equal, value: unquoted(right).unwrap_or_else(|| right.to_owned()) });
    }
    inside.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<String> {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_values() {
        let object = json!({"spec": {"a": 1, "x.y": "dot", "list": [{"n": "p", "v": 1}, {"n": "q", "v": 2}]}});
        for (path, want) in [
            (".spec.a", Some(json!(1))),
            (".spec.nope", None),
            (".spec.x\\.y", Some(json!("dot"))),
            (".spec['x.y']", Some(json!("dot"))),
            (".spec.list[1].v", Some(json!(2))),
            (".spec.list[-1].n", Some(json!("q"))),
            (".spec.list[*].v", Some(json!(1))),
            (".spec.list[?(@.n==\"q\")].v", Some(json!(2))),
            (".spec.list[?(@.n!='q')].v", Some(json!(1))),
            (".spec.list[?(@.n=='none')].v", None),
        ] {
            let found = JsonPath::parse(path).expect(path).first(&object).cloned();
            assert_eq!(found, want, "{path}");
        }
        assert_eq!(JsonPath::parse(".a[?("), None);
    }
}
