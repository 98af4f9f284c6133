//! Label and field selectors (`apimachinery/pkg/labels`, `pkg/fields`).

use serde_json::Value;
use std::fmt;

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `key in (a,b)`, and `key=a` with one value.
    In(String, Vec<String>),
    /// `key notin (a,b)` and `key!=a`: also true where the label is absent.
    NotIn(String, Vec<String>),
    /// `key`
    Exists(String),
    /// `!key`
    NotExists(String),
    /// `key>1`
    Greater(String, i64),
    /// `key<1`
    Less(String, i64),
}

impl Requirement {
    /// The label the condition is about.
    pub fn key(&self) -> &str {
        match self {
            Self::In(k, _) | Self::NotIn(k, _) | Self::Exists(k) | Self::NotExists(k) => k,
            Self::Greater(k, _) | Self::Less(k, _) => k,
        }
    }

    /// Whether a label's value (absent: `None`) meets the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(_, set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Self::NotIn(_, set) => value.is_none_or(|v| set.iter().all(|s| s != v)),
            Self::Exists(_) => value.is_some(),
            Self::NotExists(_) => value.is_none(),
            Self::Greater(_, n) => number().is_some_and(|v| v > *n),
            Self::Less(_, n) => number().is_some_and(|v| v < *n),
        }
    }
}

/// A conjunction of conditions on labels; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

impl LabelSelector {
    /// Whether every condition holds; `get` gives a label's value.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|r| r.matches(get(r.key())))
    }

    /// Whether an object's labels match.
    pub fn matches_object(&self, obj: &Value) -> bool {
        self.matches(|key| crate::meta::label(obj, key))
    }

    /// Whether a typed object's labels match.
    pub fn matches_labels(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }

    /// Parses the text of a `labelSelector` parameter; errors are worded as Kubernetes words them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0 };
        let mut out = Vec::new();
        parser.space();
        if parser.at == text.len() {
            return Ok(Self(out));
        }
        if let Token::Symbol(found) = parser.peek()
            && found != "!"
        {
            return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
        }
        loop {
            out.push(parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
            match parser.token() {
                Token::End => return Ok(Self(out)),
                Token::Symbol(",") => {}
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
            match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(format!("found '{other}', expected: identifier after ','")),
            }
        }
    }

    /// Converts a `metav1.LabelSelector`; an absent one (`None`) matches nothing and gives `None`.
    pub fn from_api(selector: Option<&crate::machinery::apis::meta::v1::LabelSelector>) -> Option<Self> {
        let selector = selector?;
        let labels = selector.match_labels.iter().flatten();
        let mut out: Vec<_> = labels.map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        for e in selector.match_expressions.iter().flatten() {
            let (key, values) = (e.key.clone(), e.values.clone().unwrap_or_default());
            out.push(match e.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::NotExists(key),
                _ => return None,
            });
        }
        Some(Self(out))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => f.write_str(word),
            Token::Symbol(symbol) => f.write_str(symbol),
            Token::End => Ok(()),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

impl<'a> Parser<'a> {
    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn token(&mut self) -> Token<'a> {
        self.space();
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return Token::End;
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|s| rest.starts_with(s)) {
            self.at += symbol.len();
            return Token::Symbol(symbol);
        }
        let end = rest.find([' ', '\t', '\n', '\r', '=', '!', '(', ')', ',', '>', '<']).unwrap_or(rest.len());
        self.at += end;
        Token::Word(&rest[..end])
    }

    fn peek(&mut self) -> Token<'a> {
        let at = self.at;
        let token = self.token();
        self.at = at;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.token();
        }
        let key = match self.token() {
            Token::Word(word) => word.to_owned(),
            other => return Err(format!("found '{other}', expected: identifier")),
        };
        if negated {
            return Ok(Requirement::NotExists(key));
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(Requirement::Exists(key));
        }
        match self.token() {
            Token::Symbol("=" | "==") => Ok(Requirement::In(key, vec![self.exact_value()?])),
            Token::Symbol("!=") => Ok(Requirement::NotIn(key, vec![self.exact_value()?])),
            Token::Symbol(">") => self.number(">").map(|n| Requirement::Greater(key, n)),
            Token::Symbol("<") => self.number("<").map(|n| Requirement::Less(key, n)),
            Token::Word("in") => self.set().map(|set| Requirement::In(key, set)),
            Token::Word("notin") => self.set().map(|set| Requirement::NotIn(key, set)),
            other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// A value that may be left out at the end of a requirement.
    fn exact_value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Symbol(other) => Err(format!("found '{other}', expected: identifier")),
            Token::Word(_) => Ok(self.word()),
        }
    }

    /// The next word; empty where a symbol stands.
    fn word(&mut self) -> String {
        match self.peek() {
            Token::Word(word) => {
                self.token();
                word.to_owned()
            }
            _ => String::new(),
        }
    }

    fn number(&mut self, _operator: &str) -> Result<i64, String> {
        let value = self.word();
        value.parse().map_err(|_| {
            format!(
                "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                crate::quoted(&value)
            )
        })
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.token() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        match self.peek() {
            Token::Word(_) | Token::Symbol(",") => {}
            Token::Symbol(")") => {
                self.token();
                return Ok(vec![String::new()]);
            }
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
        let mut out = Vec::new();
        loop {
            match self.token() {
                Token::Word(word) => out.push(word.to_owned()),
                Token::Symbol(",") => {
                    out.push(String::new());
                    if self.peek() == Token::Symbol(")") {
                        self.token();
                        break;
                    }
                    continue;
                }
                other => return Err(format!("found '{other}', expected: ',', or identifier")),
            }
            match self.token() {
                Token::Symbol(")") => break,
                Token::Symbol(",") if self.peek() == Token::Symbol(")") => {
                    out.push(String::new());
                    self.token();
                    break;
                }
                Token::Symbol(",") => {}
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
        out.sort();
        out.dedup();
        Ok(out)
    }
}

/// One condition of a field selector: path, value, and whether they must be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Field path, `spec.nodeName`.
    pub field: String,
    /// Value compared with.
    pub value: String,
    /// `=` when true, `!=` when false.
    pub equal: bool,
}

/// A conjunction of conditions on selectable fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldRequirement>);

impl FieldSelector {
    /// Parses the text of a `fieldSelector` parameter; backslash escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut out = Vec::new();
        for term in split_escaped(text, ',').into_iter().filter(|t| !t.is_empty()) {
            let (field, operator, value) = ["!=", "==", "="]
                .into_iter()
                .filter_map(|op| find_operator(term, op).map(|at| (at, op)))
                .min_by_key(|(at, op)| (*at, usize::MAX - op.len()))
                .map(|(at, op)| (&term[..at], op, &term[at + op.len()..]))
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            let value = unescape(value).map_err(|why| format!("invalid field selector: {why}"))?;
            out.push(FieldRequirement { field: field.into(), value, equal: operator != "!=" });
        }
        Ok(Self(out))
    }

    /// Whether every condition holds; `get` gives a field's value, empty where it is unset.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|r| (get(&r.field) == r.value) == r.equal)
    }

    /// The value that `field` must equal, when the selector fixes it.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

fn split_escaped(text: &str, separator: char) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == separator => {
                out.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn find_operator(term: &str, operator: &str) -> Option<usize> {
    term.match_indices(operator).map(|(at, _)| at).find(|at| !term[..*at].ends_with('\\'))
}

/// A value without its escapes; what separates requirements may only stand there escaped.
fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    return Err(format!("invalid escape sequence: \\{}", other.map(String::from).unwrap_or_default()));
                }
            },
            // Told as a number, as Go prints a rune.
            ',' | '=' => return Err(format!("unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_match() {
        let obj = json!({"metadata": {"labels": {"a": "1", "b": "x"}}});
        let table = [
            ("", true),
            ("a=1", true),
            ("a==2", false),
            ("a!=2", true),
            ("c!=2", true),
            ("a in (1,2)", true),
            ("b notin (x)", false),
            ("a", true),
            ("!a", false),
            ("c", false),
            ("a>0,b=x", true),
            ("a<1", false),
            (" a = 1 , !z ", true),
            ("c in (,q)", false),
        ];
        for (text, want) in table {
            assert_eq!(LabelSelector::parse(text).map(|s| s.matches_object(&obj)), Ok(want), "{text}");
        }
        let failed = |text: &str, want: &str| assert_eq!(LabelSelector::parse(text).err().as_deref(), Some(want));
        assert!(LabelSelector::parse("a in ()").is_ok());
        failed("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier");
        failed("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'");
        for text in ["a=1,", "a in 1", "in in in", ",", "a===1", "a b", "a>x", "(a)"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_match() {
        let get = |f: &str| match f {
            "metadata.name" => "a=b",
            "spec.nodeName" => "n",
            _ => "",
        };
        for (text, want) in [
            ("", true),
            ("spec.nodeName=n", true),
            ("spec.nodeName!=n", false),
            ("metadata.name=a\\=b", true),
            ("x==,spec.nodeName=n", true),
        ] {
            assert_eq!(FieldSelector::parse(text).map(|s| s.matches(get)), Ok(want), "{text}");
        }
        assert!(FieldSelector::parse("abc").is_err());
    }
}
