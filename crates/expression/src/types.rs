//! Types of the checker, their text as cel-go prints it, and the little language of signatures.

use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything; checked at run time.
    Dyn,
    /// As [`Type::Dyn`], under another name: a value wrapped with its type.
    Any,
    /// What an ill-typed expression has, so that the check may go on.
    Error,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `timestamp`
    Timestamp,
    /// `duration`
    Duration,
    /// `list(T)`
    List(Arc<Type>),
    /// `map(K, V)`
    Map(Arc<(Type, Type)>),
    /// `optional_type(T)`
    Optional(Arc<Type>),
    /// `type(T)`
    Type(Arc<Type>),
    /// An object with declared fields.
    Object(Arc<str>),
    /// A type of a library, known by its name.
    Opaque(&'static str),
    /// A type parameter: of a signature (below [`FREE`]) or a free variable of a check.
    Param(u32),
}

/// Where free type variables start; smaller numbers are the capitals of a signature.
pub(crate) const FREE: u32 = 26;

impl Type {
    /// `list(element)`
    pub fn list(element: Type) -> Self {
        Self::List(Arc::new(element))
    }

    /// `map(key, value)`
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// `optional_type(value)`
    pub fn optional(value: Type) -> Self {
        Self::Optional(Arc::new(value))
    }

    /// A type of a library, such as `kubernetes.authorization.Authorizer`.
    pub fn opaque(name: &'static str) -> Self {
        Self::Opaque(name)
    }

    /// An object type by its name.
    pub fn object(name: &str) -> Self {
        Self::Object(name.into())
    }

    /// Whether values of the type are checked only at run time.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }

    /// The text of the type as Kubernetes' own messages give it: cel-go's names of types at run time.
    pub fn runtime_text(&self) -> String {
        let parameters: Vec<String> = self.parameters().into_iter().map(Self::runtime_text).collect();
        match parameters.is_empty() {
            true => self.name().to_owned(),
            false => format!("{}({})", self.name(), parameters.join(", ")),
        }
    }

    /// The types it is made of.
    pub(crate) fn parameters(&self) -> Vec<&Type> {
        match self {
            Self::List(t) | Self::Optional(t) | Self::Type(t) => vec![t],
            Self::Map(kv) => vec![&kv.0, &kv.1],
            _ => Vec::new(),
        }
    }

    /// The name without parameters, as `type(x)` gives it at run time.
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Any => "google.protobuf.Any",
            Self::Error => "!error!",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Object(name) => name,
            Self::Opaque(name) => name,
            Self::Param(_) => "dyn",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Any => f.write_str("any"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(t) => write!(f, "list({t})"),
            Self::Map(kv) => write!(f, "map({}, {})", kv.0, kv.1),
            Self::Optional(t) => write!(f, "optional_type({t})"),
            Self::Type(t) => write!(f, "type({t})"),
            Self::Param(n @ 0..FREE) => write!(f, "{}", char::from(b'A' + *n as u8)),
            Self::Param(n) => write!(f, "_var{}", n - FREE),
            other => f.write_str(other.name()),
        }
    }
}

/// What a row of a library's table says of a function: `list(T)::indexOf(T) -> int`, or without a target `url(string) -> kubernetes.URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Whether the first parameter is the target of a member call.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
}

impl Signature {
    /// Reads the text of a row; `None` when it is malformed (a test reads every row).
    pub fn parse(text: &'static str) -> Option<Self> {
        let (call, result) = text.rsplit_once(" -> ")?;
        let body = call.strip_suffix(')')?;
        let open = open_of_last_group(body)?;
        let (head, inside) = (&body[..open], &body[open + 1..]);
        let (member, target) = match split_target(head) {
            Some(target) => (true, Some(parse_type(target)?)),
            None => (false, None),
        };
        let mut params: Vec<Type> = target.into_iter().collect();
        for part in split_top(inside) {
            params.push(parse_type(part)?);
        }
        Some(Self { member, params, result: parse_type(result)? })
    }
}

/// The type before `::`, of which the function is a member.
fn split_target(head: &'static str) -> Option<&'static str> {
    let (target, _) = head.rsplit_once("::")?;
    Some(target)
}

fn open_of_last_group(body: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in body.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 0 => return Some(at),
            '(' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn split_top(text: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        out.push(text[start..].trim());
    }
    out
}

fn parse_type(text: &'static str) -> Option<Type> {
    if let Some((head, inside)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let mut inner = split_top(inside).into_iter().map(parse_type).collect::<Option<Vec<_>>>()?;
        let last = inner.pop()?;
        return match (head, inner.pop()) {
            ("list", None) => Some(Type::list(last)),
            ("optional", None) => Some(Type::optional(last)),
            ("type", None) => Some(Type::Type(Arc::new(last))),
            ("map", Some(key)) => Some(Type::map(key, last)),
            _ => None,
        };
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        _ => match text.as_bytes() {
            [letter @ b'A'..=b'Z'] => Type::Param(u32::from(letter - b'A')),
            [] => return None,
            _ => Type::Opaque(text),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        #[track_caller]
        fn check(text: &'static str, member: bool, params: &str, result: &str) {
            let signature = Signature::parse(text).unwrap();
            let shown: Vec<String> = signature.params.iter().map(ToString::to_string).collect();
            assert_eq!(
                (signature.member, shown.join("; ").as_str(), signature.result.to_string().as_str()),
                (member, params, result)
            );
        }
        check("list(T)::indexOf(T) -> int", true, "list(T); T", "int");
        check("quantity(string) -> kubernetes.Quantity", false, "string", "kubernetes.Quantity");
        check(
            "map(K, V)::f(list(map(K, V)), int) -> optional(V)",
            true,
            "map(K, V); list(map(K, V)); int",
            "optional_type(V)",
        );
        check("f() -> type(A)", false, "", "type(A)");
        assert_eq!(Signature::parse("f( -> int"), None);
    }
}
