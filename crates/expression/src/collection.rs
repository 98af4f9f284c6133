//! Lists and maps: views of JSON, collections an expression made, and lists joined without copying.

use crate::decl::{DeclType, Kind, ListType};
use crate::error::EvalError;
use crate::escape::{escape, unescape};
use crate::number;
use crate::value::{Text, Value};
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// A JSON array and the declared type of the list (or `dyn`).
    Json(&'a [Json], &'a DeclType),
    /// Values, with the declared type that says how they merge.
    Values(Arc<[Value<'a>]>, &'a DeclType),
    /// One list after another.
    Concat(Arc<Concat<'a>>),
}

/// Two lists as one.
#[derive(Debug)]
pub struct Concat<'a> {
    left: List<'a>,
    right: List<'a>,
    length: usize,
}

impl<'a> List<'a> {
    /// A view of a JSON array.
    pub fn json(items: &'a [Json], decl: &'a DeclType) -> Self {
        Self::Json(items, decl)
    }

    /// A list of values.
    pub fn values(values: Vec<Value<'a>>) -> Self {
        Self::Values(values.into(), DeclType::dynamic_ref())
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Values(values, _) => values.len(),
            Self::Concat(both) => both.length,
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element; `None` past the end.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        let (mut list, mut index) = (self, index);
        loop {
            match list {
                Self::Json(items, decl) => return items.get(index).map(|item| Value::view(item, element(decl))),
                Self::Values(values, _) => return values.get(index).cloned().map(Ok),
                Self::Concat(both) if index < both.left.len() => list = &both.left,
                Self::Concat(both) => {
                    index -= both.left.len();
                    list = &both.right;
                }
            }
        }
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> {
        let list = self.clone();
        (0..self.len()).map_while(move |index| list.get(index))
    }

    /// How two such lists are compared and joined.
    pub(crate) fn list_type(&self) -> &'a ListType {
        match self {
            Self::Json(_, decl) | Self::Values(_, decl) => match &decl.kind {
                Kind::List(_, list_type) => list_type,
                _ => &ListType::Atomic,
            },
            Self::Concat(_) => &ListType::Atomic,
        }
    }

    /// Whether a schema says what the elements are.
    pub(crate) fn is_declared(&self) -> bool {
        matches!(self, Self::Json(_, decl) | Self::Values(_, decl) if decl.kind != Kind::Dyn)
    }

    /// `self + other`; sets unite and maps merge, each in the order of `self`.
    pub(crate) fn join(&self, other: &Self) -> Result<Self, EvalError> {
        let (Self::Json(_, decl) | Self::Values(_, decl)) = self else { return Ok(self.concat(other)) };
        match self.list_type() {
            ListType::Atomic => Ok(self.concat(other)),
            list_type => {
                let mut places: BTreeMap<String, usize> = BTreeMap::new();
                let mut out: Vec<Value<'a>> = Vec::with_capacity(self.len());
                for item in self.iter() {
                    let item = item?;
                    places.insert(identity(&item, list_type)?, out.len());
                    out.push(item);
                }
                for item in other.iter() {
                    let item = item?;
                    let key = identity(&item, list_type)?;
                    match places.get(&key) {
                        Some(&place) => out[place] = item,
                        None => {
                            places.insert(key, out.len());
                            out.push(item);
                        }
                    }
                }
                Ok(Self::Values(out.into(), decl))
            }
        }
    }

    fn concat(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return other.clone();
        }
        let length = self.len().saturating_add(other.len());
        Self::Concat(Arc::new(Concat { left: self.clone(), right: other.clone(), length }))
    }
}

/// What makes an element of a set or a map list the same as another.
pub(crate) fn identity(item: &Value<'_>, list_type: &ListType) -> Result<String, EvalError> {
    let json = item.to_json()?;
    Ok(match list_type {
        ListType::Map(keys) => {
            let parts: Vec<String> = keys.iter().map(|key| json.get(key).unwrap_or(&Json::Null).to_string()).collect();
            parts.join(",")
        }
        _ => json.to_string(),
    })
}

fn element(decl: &DeclType) -> &DeclType {
    match decl.element() {
        Some(element) => element,
        None => DeclType::dynamic_ref(),
    }
}

/// A map, or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// A JSON object and its declared type (or `dyn`).
    Json(&'a serde_json::Map<String, Json>, &'a DeclType),
    /// Entries an expression made.
    Values(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// Entries as above, with an empty map in place of every text key that is missing (domains of device attributes).
    Domains(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// An object an expression made, with the name of its type.
    Struct(Arc<Struct<'a>>),
}

/// An object an expression made: `Object{spec: ...}`.
#[derive(Debug)]
pub struct Struct<'a> {
    /// The name of its type.
    pub name: Arc<str>,
    /// The fields that are set, by their escaped names.
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

impl<'a> Map<'a> {
    /// A view of a JSON object.
    pub fn json(fields: &'a serde_json::Map<String, Json>, decl: &'a DeclType) -> Self {
        Self::Json(fields, decl)
    }

    /// A map of values.
    pub fn values(entries: BTreeMap<Key<'a>, Value<'a>>) -> Self {
        Self::Values(Arc::new(entries))
    }

    /// A map of maps in which every text key is found.
    pub fn domains(entries: BTreeMap<Key<'a>, Value<'a>>) -> Self {
        Self::Domains(Arc::new(entries))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(fields, _) => fields.len(),
            Self::Values(entries) | Self::Domains(entries) => entries.len(),
            Self::Struct(object) => object.fields.len(),
        }
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn type_name(&self) -> &str {
        if let Self::Struct(object) = self { &object.name } else { "map" }
    }

    /// Whether a schema says what the values are.
    pub(crate) fn is_declared(&self) -> bool {
        matches!(self, Self::Json(_, decl) if decl.kind != Kind::Dyn)
    }

    /// The value of a text key or a field.
    pub fn find(&self, name: &str) -> Result<Option<Value<'a>>, EvalError> {
        match self {
            Self::Json(fields, decl) => match &decl.kind {
                Kind::Object(_) => {
                    let Some(property) = unescape(name) else { return Ok(None) };
                    // A null in place of a field counts as absent.
                    let json = fields.get(property.as_ref()).filter(|json| !json.is_null());
                    json.zip(decl.field(name)).map(|(json, decl)| Value::view(json, decl)).transpose()
                }
                Kind::Map(value) => fields.get(name).map(|json| Value::view(json, value)).transpose(),
                _ => Ok(fields.get(name).map(Value::json)),
            },
            Self::Values(entries) => Ok(entries.get(&Key::String(Text::Shared(name.into()))).cloned()),
            Self::Domains(entries) => {
                let found = entries.get(&Key::String(Text::Shared(name.into()))).cloned();
                Ok(Some(found.unwrap_or_else(|| Value::Map(Self::values(BTreeMap::new())))))
            }
            Self::Struct(object) => Ok(object.fields.get(name).cloned()),
        }
    }

    /// The value of a key of any type.
    pub fn get(&self, key: &Value<'_>) -> Result<Option<Value<'a>>, EvalError> {
        match (self, key) {
            (_, Value::String(name)) => self.find(name),
            (Self::Values(entries) | Self::Domains(entries), _) => Ok(Key::lookup(key).and_then(|key| entries.get(&key).cloned())),
            (Self::Json(..), _) if !self.is_declared() => Ok(None),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(fields, decl) => match &decl.kind {
                Kind::Object(object) => fields
                    .keys()
                    .filter_map(|name| escape(name))
                    .filter(|ident| object.fields.contains_key(ident.as_ref()))
                    .map(ident_value)
                    .collect(),
                _ => fields.keys().map(|name| Value::String(Text::Borrowed(name))).collect(),
            },
            Self::Values(entries) | Self::Domains(entries) => entries.keys().map(Key::value).collect(),
            Self::Struct(object) => object.fields.keys().map(|name| Value::text(Arc::clone(name))).collect(),
        }
    }
}

fn ident_value(ident: std::borrow::Cow<'_, str>) -> Value<'_> {
    match ident {
        std::borrow::Cow::Borrowed(name) => Value::String(Text::Borrowed(name)),
        std::borrow::Cow::Owned(name) => Value::text(name),
    }
}

/// A key of a map that an expression made. Numbers of different types that are equal are the same key.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// A boolean.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// Text.
    String(Text<'a>),
}

impl<'a> Key<'a> {
    /// A value as a key; `None` when its type cannot be one.
    pub fn new(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Bool(*b)),
            Value::Int(i) => Some(Self::Int(*i)),
            Value::Uint(u) => Some(Self::Uint(*u)),
            Value::String(text) => Some(Self::String(text.clone())),
            _ => None,
        }
    }

    /// As [`Key::new`]; a double that is a whole number finds that number.
    fn lookup(value: &Value<'_>) -> Option<Key<'a>> {
        match value {
            Value::Bool(b) => Some(Self::Bool(*b)),
            Value::Int(i) => Some(Self::Int(*i)),
            Value::Uint(u) => Some(Self::Uint(*u)),
            Value::Double(d) => number::exact_int(*d).map(Self::Int),
            Value::String(text) => Some(Self::String(Text::Shared(Arc::from(&**text)))),
            _ => None,
        }
    }

    /// The key as a value.
    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i) => Value::Int(*i),
            Self::Uint(u) => Value::Uint(*u),
            Self::String(text) => Value::String(text.clone()),
        }
    }

    fn rank(&self) -> (u8, i128) {
        match self {
            Self::Bool(b) => (0, i128::from(*b)),
            Self::Int(i) => (1, i128::from(*i)),
            Self::Uint(u) => (1, i128::from(*u)),
            Self::String(_) => (2, 0),
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a.as_ref().cmp(b.as_ref()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        self
    }
}
