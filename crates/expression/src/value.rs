//! Values: views of JSON that is borrowed for the evaluation, and what expressions make themselves.

use crate::collection::{List, Map};
use crate::decl::{DeclType, Kind};
use crate::error::EvalError;
use crate::time::{self, Moment};
use crate::types::Type;
use base64::Engine;
use serde_json::Value as Json;
use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A value of an expression.
#[derive(Clone, Debug, Default)]
pub enum Value<'a> {
    /// `null`
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A moment.
    Timestamp(Moment),
    /// A length of time in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A type, by its name.
    Type(Arc<str>),
    /// An optional value.
    Optional(Option<Arc<Value<'a>>>),
    /// A value of a library.
    Opaque(Arc<dyn Opaque>),
}

/// A value that only its library understands.
pub trait Opaque: fmt::Debug + Send + Sync {
    /// The name of its type, such as `net.IP`.
    fn type_name(&self) -> &'static str;
    /// Whether both are the same; `other` may be of another type.
    fn equals(&self, other: &dyn Opaque) -> bool;
    /// For the library to get its own type back.
    fn as_any(&self) -> &dyn Any;
    /// The size cost is counted by; 1 for what has none.
    fn size(&self) -> u64 {
        1
    }
    /// The text `string(x)` gives, where the library defines it.
    fn text(&self) -> Option<String> {
        None
    }
}

/// Text, borrowed where it can be.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Text of the input.
    Borrowed(&'a str),
    /// Text that was made.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl<'a> Value<'a> {
    /// A view of JSON without a schema.
    pub fn json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => number(n),
            Json::String(text) => Self::String(Text::Borrowed(text)),
            Json::Array(items) => Self::List(List::json(items, DeclType::dynamic_ref())),
            Json::Object(fields) => Self::Map(Map::json(fields, DeclType::dynamic_ref())),
        }
    }

    /// A view of JSON through its declared type. What does not fit the type gives an error when it is used.
    pub fn typed(json: &'a Json, decl: &'a DeclType) -> Self {
        Self::view(json, decl).unwrap_or_else(|_| Self::json(json))
    }

    /// As [`Value::typed`], with the error of a value that does not fit.
    pub(crate) fn view(json: &'a Json, decl: &'a DeclType) -> Result<Self, EvalError> {
        Ok(match (&decl.kind, json) {
            (Kind::Dyn, _) | (Kind::IntOrString, Json::Number(_) | Json::String(_)) => Self::json(json),
            (_, Json::Null) if decl.nullable => Self::Null,
            (_, Json::Null) => return Err(EvalError::new("invalid data, got null for schema with nullable=false")),
            (Kind::Object(_) | Kind::Map(_), Json::Object(fields)) => Self::Map(Map::json(fields, decl)),
            (Kind::List(..), Json::Array(items)) => Self::List(List::json(items, decl)),
            (Kind::String, Json::String(text)) => Self::String(Text::Borrowed(text)),
            (Kind::Bool, Json::Bool(b)) => Self::Bool(*b),
            (Kind::Int, Json::Number(n)) => Self::Int(whole(n).ok_or_else(|| mismatch("int", json))?),
            (Kind::Double, Json::Number(n)) => Self::Double(n.as_f64().ok_or_else(|| mismatch("float", json))?),
            (Kind::Bytes, Json::String(text)) => bytes(text)?,
            (Kind::Date, Json::String(text)) => Self::Timestamp(time::parse_date(text)?),
            (Kind::Timestamp, Json::String(text)) => Self::Timestamp(time::parse_date_time(text)?),
            (Kind::Duration, Json::String(text)) => Self::Duration(time::parse_duration_format(text)?),
            (kind, _) => return Err(mismatch(expected(kind), json)),
        })
    }

    /// Text that was made.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// A value of a library.
    pub fn opaque(value: impl Opaque + 'static) -> Self {
        Self::Opaque(Arc::new(value))
    }

    /// An optional value.
    pub fn optional(value: Option<Value<'a>>) -> Self {
        Self::Optional(value.map(Arc::new))
    }

    /// A list of values.
    pub fn list(values: Vec<Value<'a>>) -> Self {
        Self::List(List::values(values))
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The boolean it is.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(b) = self { Some(*b) } else { None }
    }

    /// The signed number it is.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(i) = self { Some(*i) } else { None }
    }

    /// The text it is.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The value of a library it is.
    pub fn as_opaque<T: 'static>(&self) -> Option<&T> {
        if let Self::Opaque(value) = self { value.as_any().downcast_ref() } else { None }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(map) => map.type_name(),
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Opaque(value) => value.type_name(),
        }
    }

    /// Whether a parameter of the declared type takes it; parts of lists and maps are not looked at.
    pub(crate) fn fits(&self, declared: &Type) -> bool {
        match (declared, self) {
            (Type::Dyn | Type::Any | Type::Error | Type::Param(_), _)
            | (Type::Null, Self::Null)
            | (Type::Bool, Self::Bool(_))
            | (Type::Int, Self::Int(_))
            | (Type::Uint, Self::Uint(_))
            | (Type::Double, Self::Double(_))
            | (Type::String, Self::String(_))
            | (Type::Bytes, Self::Bytes(_))
            | (Type::Timestamp, Self::Timestamp(_))
            | (Type::Duration, Self::Duration(_))
            | (Type::List(_), Self::List(_))
            | (Type::Map(_), Self::Map(_))
            | (Type::Object(_), Self::Map(_))
            | (Type::Optional(_), Self::Optional(_))
            | (Type::Type(_), Self::Type(_)) => true,
            (Type::Opaque(name), Self::Opaque(value)) => *name == value.type_name(),
            // A constant pattern, compiled.
            (Type::String, Self::Opaque(value)) => value.type_name() == "string",
            _ => false,
        }
    }

    /// How many elements, entries, bytes or characters it has; 1 for what has no size.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(value)) => value.size(),
            Self::Opaque(value) => value.size(),
            _ => 1,
        }
    }
}

fn number(n: &serde_json::Number) -> Value<'static> {
    // What is too large for a signed number is a floating-point number, as everywhere in Kubernetes.
    n.as_i64().map_or_else(|| Value::Double(n.as_f64().unwrap_or(f64::NAN)), Value::Int)
}

/// Whole numbers may be written with a fraction of zero.
fn whole(n: &serde_json::Number) -> Option<i64> {
    n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e18).map(|f| f as i64))
}

fn bytes(text: &str) -> Result<Value<'static>, EvalError> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded
        .map(|b| Value::Bytes(b.into()))
        .map_err(|e| EvalError::new(format!("Invalid byte formatted string {text}: {e}")))
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Object(_) | Kind::Map(_) => "a map for the provided schema with type=object",
        Kind::List(..) => "an array for the provided schema with type=array",
        Kind::IntOrString => "XIntOrString value to be either a string or integer",
        Kind::Bool => "bool",
        Kind::Int => "int",
        Kind::Double => "float",
        _ => "string",
    }
}

fn mismatch(expected: &str, json: &Json) -> EvalError {
    let got = match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    };
    match expected.contains(' ') {
        true => EvalError::new(format!("invalid data, expected {expected}")),
        false => EvalError::new(format!("invalid data, expected {expected}, got {got}")),
    }
}
