//! The part of JSONPath that printer columns use: fields, indexes, slices, unions, `*`, `..` and filters.

use serde_json::Value;
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// From, to and by.
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<Step>),
    All,
    /// The value and everything below it.
    Below,
    Filter(Operand, Operator, Operand),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a filter compares.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// A path from the element.
    Path(JsonPath),
    Value(Value),
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

/// Longer paths, or filters in filters, are refused.
const STEPS_MAX: usize = 64;
/// Values looked at on the way; what is wider finds nothing.
const FOUND_MAX: usize = 10_000;

impl JsonPath {
    /// Parses `.status.conditions[?(@.type=="Ready")].status`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_within(text.trim(), 0)
    }

    fn parse_within(text: &str, depth: usize) -> Option<Self> {
        let (mut steps, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            if steps.len() > STEPS_MAX || depth > 4 {
                return None;
            }
            if let Some(inside) = rest.strip_prefix('[') {
                let end = closing(inside)?;
                steps.push(bracket(&inside[..end], depth)?);
                rest = &inside[end + 1..];
                continue;
            }
            rest = rest.strip_prefix('.')?;
            if let Some(below) = rest.strip_prefix('.') {
                steps.push(Step::Below);
                rest = below;
            }
            let (name, after) = field(rest);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Field(name)),
            }
            rest = after;
        }
        Some(Self(steps))
    }

    /// The first value of the path.
    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).take(FOUND_MAX).collect();
        }
        found.first().copied()
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(list)) => {
                let at = if *at < 0 { *at + length(list) } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::Slice(from, to, by), Value::Array(list)) => slice(list, *from, *to, *by),
            (Self::Union(steps), _) => steps.iter().flat_map(|step| step.of(value)).collect(),
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Below, _) => {
                let (mut found, mut next) = (vec![value], 0);
                while let Some(value) = found.get(next).copied().filter(|_| found.len() < FOUND_MAX) {
                    found.extend(Self::All.of(value));
                    next += 1;
                }
                found
            }
            (Self::Filter(left, operator, right), Value::Array(list)) => {
                list.iter().filter(|item| operator.holds(left.of(item), right.of(item))).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn length(list: &[Value]) -> i64 {
    i64::try_from(list.len()).unwrap_or(i64::MAX)
}

fn slice(list: &[Value], from: Option<i64>, to: Option<i64>, by: i64) -> Vec<&Value> {
    let end = length(list);
    let place = |at: i64| usize::try_from(if at < 0 { at + end } else { at }.clamp(0, end)).unwrap_or(0);
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(end)));
    let by = usize::try_from(by).unwrap_or(1).max(1);
    list.get(from..to).unwrap_or_default().iter().step_by(by).collect()
}

impl Operand {
    fn of<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.first(item),
            Self::Value(value) => Some(value),
        }
    }
}

impl Operator {
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let (Some(left), false) = (left, self == Self::Exists) else { return left.is_some() };
        let Some(right) = right else { return false };
        let order = match (left.as_f64(), right.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => text(left).partial_cmp(&text(right)),
        };
        match self {
            Self::Exists => true,
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The bracket that ends what began; those in between and quotes are skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
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

fn bracket(inside: &str, depth: usize) -> Option<Step> {
    let inside = inside.trim();
    if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        return filter(condition, depth);
    }
    let parts = split(inside, ',');
    match parts.as_slice() {
        [one] => element(one),
        many => Some(Step::Union(many.iter().map(|part| element(part)).collect::<Option<_>>()?)),
    }
}

fn element(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name));
    }
    if !text.contains(':') {
        return text.parse().ok().map(Step::Index);
    }
    let mut parts = text.splitn(3, ':').map(str::trim);
    let mut number = || match parts.next() {
        None | Some("") => Some(None),
        Some(number) => number.parse().ok().map(Some),
    };
    let (from, to, by) = (number()?, number()?, number()?);
    Some(Step::Slice(from, to, by.unwrap_or(1)))
}

/// The parts of a text between separators outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut out, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, _) if c == separator => {
                out.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn filter(condition: &str, depth: usize) -> Option<Step> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found = OPERATORS.iter().filter_map(|(sign, operator)| Some((condition.find(sign)?, *sign, *operator)));
    // The leftmost, and of two that begin there the longer one.
    match found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len()))) {
        Some((at, sign, operator)) => {
            let (left, right) = (operand(&condition[..at], depth)?, operand(&condition[at + sign.len()..], depth)?);
            Some(Step::Filter(left, operator, right))
        }
        None => Some(Step::Filter(operand(condition, depth)?, Operator::Exists, Operand::Value(Value::Null))),
    }
}

fn operand(text: &str, depth: usize) -> Option<Operand> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix('@') {
        return JsonPath::parse_within(path, depth + 1).map(Operand::Path);
    }
    let value = unquoted(text).map(Value::from).or_else(|| serde_json::from_str(text).ok());
    Some(Operand::Value(value.unwrap_or_else(|| text.into())))
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
        let object =
            json!({"spec": {"a": 1, "x.y": "dot", "list": [{"n": "p", "v": 1}, {"n": "q", "v": 2, "w": true}]}});
        for (path, want) in [
            (".spec.a", Some(json!(1))),
            (".spec.nope", None),
            (".spec.x\\.y", Some(json!("dot"))),
            (".spec['x.y']", Some(json!("dot"))),
            (".spec['nope','a']", Some(json!(1))),
            (".spec.list[1].v", Some(json!(2))),
            (".spec.list[-1].n", Some(json!("q"))),
            (".spec.list[1:].n", Some(json!("q"))),
            (".spec.list[0:1].n", Some(json!("p"))),
            (".spec.list[5,1].n", Some(json!("q"))),
            (".spec.list[*].v", Some(json!(1))),
            ("..w", Some(json!(true))),
            (".spec.list[?(@.n==\"q\")].v", Some(json!(2))),
            (".spec.list[?(@.n!='q')].v", Some(json!(1))),
            (".spec.list[?(@.v>1)].n", Some(json!("q"))),
            (".spec.list[?(@.w)].n", Some(json!("q"))),
            (".spec.list[?(@.n=='none')].v", None),
        ] {
            let found = JsonPath::parse(path).expect(path).first(&object).cloned();
            assert_eq!(found, want, "{path}");
        }
        assert_eq!(JsonPath::parse(".a[?("), None);
    }
}
