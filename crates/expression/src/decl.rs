//! Declared types: what a schema says of the values an expression sees, with the bounds that cost estimates need.

use crate::escape::{escape, is_reserved};
use crate::limits::MAX_REQUEST_SIZE_BYTES;
use crate::types::Type;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// No bound is known.
pub const UNBOUNDED: i64 = i64::MAX;
/// Longer chains of `$ref` or nesting are not followed.
const MAX_DEPTH: usize = 64;

/// A declared type.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclType {
    /// What the values are.
    pub kind: Kind,
    /// The most elements, entries or bytes; [`UNBOUNDED`] where the declaration does not say, 0 for what has no size.
    pub max_elements: i64,
    /// The fewest bytes of a value in JSON.
    pub min_serialized_size: i64,
    /// Whether a value may be `null`.
    pub nullable: bool,
}

/// The shapes of declared types.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Anything: no schema.
    Dyn,
    /// Anything, wrapped with its type.
    Any,
    /// A quantity.
    Quantity,
    /// `x-kubernetes-int-or-string`
    IntOrString,
    /// A boolean.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// Text.
    String,
    /// Base64 text (`format: byte`).
    Bytes,
    /// A day (`format: date`).
    Date,
    /// A moment (`format: date-time`).
    Timestamp,
    /// A length of time (`format: duration`).
    Duration,
    /// A list.
    List(Arc<DeclType>, ListType),
    /// A map from strings (`additionalProperties`).
    Map(Arc<DeclType>),
    /// An object with declared fields.
    Object(Object),
}

/// `x-kubernetes-list-type`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole; the default.
    Atomic,
    /// Compared and joined as a set.
    Set,
    /// Compared and joined by the values of these fields.
    Map(Vec<String>),
}

/// The fields of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The name of the type in error texts.
    pub name: Arc<str>,
    /// Fields by their escaped names.
    pub fields: BTreeMap<String, Arc<DeclType>>,
}

static DYN: LazyLock<Arc<DeclType>> = LazyLock::new(|| DeclType::simple(Kind::Dyn, UNBOUNDED, 1));

impl DeclType {
    /// Anything, checked at run time.
    pub fn dynamic() -> Arc<Self> {
        Arc::clone(&DYN)
    }

    /// Anything, wrapped with its type: as dynamic, but nothing that is gone through element by element.
    pub fn any() -> Arc<Self> {
        Self::simple(Kind::Any, UNBOUNDED, 1)
    }

    /// A quantity of the library.
    pub fn quantity() -> Arc<Self> {
        Self::simple(Kind::Quantity, UNBOUNDED, 8)
    }

    pub(crate) fn dynamic_ref() -> &'static Self {
        &DYN
    }

    fn simple(kind: Kind, max_elements: i64, min_serialized_size: i64) -> Arc<Self> {
        Arc::new(Self { kind, max_elements, min_serialized_size, nullable: false })
    }

    /// A string of unknown length.
    pub fn string() -> Arc<Self> {
        Self::simple(Kind::String, UNBOUNDED, 2)
    }

    /// The keys of maps, of which no declaration gives a length.
    pub(crate) fn key() -> Arc<Self> {
        Self::simple(Kind::String, 0, 2)
    }

    /// A boolean.
    pub fn boolean() -> Arc<Self> {
        Self::simple(Kind::Bool, 0, 4)
    }

    /// A whole number.
    pub fn int() -> Arc<Self> {
        Self::simple(Kind::Int, 0, 1)
    }

    /// A moment.
    pub fn timestamp() -> Arc<Self> {
        Self::simple(Kind::Timestamp, UNBOUNDED, 21)
    }

    /// An atomic list of unknown length.
    pub fn list(element: Arc<Self>) -> Arc<Self> {
        Self::simple(Kind::List(element, ListType::Atomic), UNBOUNDED, 2)
    }

    /// A map from strings, of unknown size.
    pub fn map(value: Arc<Self>) -> Arc<Self> {
        Self::simple(Kind::Map(value), UNBOUNDED, 2)
    }

    /// An object; the names of its fields are escaped already.
    pub fn object<'f>(name: &str, fields: impl IntoIterator<Item = (&'f str, Arc<Self>)>) -> Arc<Self> {
        let fields = fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect();
        Self::simple(Kind::Object(Object { name: name.into(), fields }), 0, 2)
    }

    /// The same type with a bound on its size.
    #[must_use]
    pub fn at_most(self: Arc<Self>, max_elements: i64) -> Arc<Self> {
        Arc::new(Self { max_elements, ..Arc::unwrap_or_clone(self) })
    }

    /// The type of a structural or OpenAPI schema; `None` for what expressions do not see.
    ///
    /// `root` says that it is a resource, which has `apiVersion`, `kind` and `metadata` whether the schema names them or not.
    pub fn from_schema(schema: &Json, root: bool) -> Option<Arc<Self>> {
        Self::from_schema_with(schema, root, &|_| None)
    }

    /// As [`DeclType::from_schema`], where `resolve` finds what a `$ref` names.
    pub fn from_schema_with<'s>(
        schema: &'s Json,
        root: bool,
        resolve: &dyn Fn(&str) -> Option<&'s Json>,
    ) -> Option<Arc<Self>> {
        Reader { resolve }.read(schema, root, "selfType", 0)
    }

    /// The checker's type of its values.
    pub fn cel_type(&self) -> Type {
        match &self.kind {
            Kind::Dyn | Kind::IntOrString => Type::Dyn,
            Kind::Any => Type::Any,
            Kind::Quantity => Type::opaque("kubernetes.Quantity"),
            Kind::Bool => Type::Bool,
            Kind::Int => Type::Int,
            Kind::Double => Type::Double,
            Kind::String => Type::String,
            Kind::Bytes => Type::Bytes,
            Kind::Date | Kind::Timestamp => Type::Timestamp,
            Kind::Duration => Type::Duration,
            Kind::List(element, _) => Type::list(element.cel_type()),
            Kind::Map(value) => Type::map(Type::String, value.cel_type()),
            Kind::Object(object) => Type::Object(Arc::clone(&object.name)),
        }
    }

    /// The object types in it, by name.
    pub(crate) fn objects(self: &Arc<Self>, out: &mut BTreeMap<Arc<str>, Arc<DeclType>>) {
        match &self.kind {
            Kind::List(below, _) | Kind::Map(below) => below.objects(out),
            Kind::Object(object) => {
                let new = out.insert(Arc::clone(&object.name), Arc::clone(self)).is_none();
                object.fields.values().filter(|_| new).for_each(|field| field.objects(out));
            }
            _ => {}
        }
    }

    /// The declared type of elements or values.
    pub(crate) fn element(&self) -> Option<&Arc<DeclType>> {
        match &self.kind {
            Kind::List(element, _) | Kind::Map(element) => Some(element),
            _ => None,
        }
    }

    /// The declared type of a field or value.
    pub(crate) fn field(&self, name: &str) -> Option<&Arc<DeclType>> {
        match &self.kind {
            // Words that CEL reserves may be written as they are after a dot.
            Kind::Object(object) => {
                let reserved = || is_reserved(name).then(|| object.fields.get(&format!("__{name}__"))).flatten();
                object.fields.get(name).or_else(reserved)
            }
            Kind::Map(value) => Some(value),
            _ => None,
        }
    }
}

struct Reader<'s, 'r> {
    resolve: &'r dyn Fn(&str) -> Option<&'s Json>,
}

impl<'s> Reader<'s, '_> {
    fn read(&self, schema: &'s Json, root: bool, name: &str, depth: usize) -> Option<Arc<DeclType>> {
        let schema = self.target(schema)?;
        let decl = self.shape(schema, root, name, depth)?;
        Some(if flag(schema, "nullable") {
            Arc::new(DeclType { nullable: true, ..Arc::unwrap_or_clone(decl) })
        } else {
            decl
        })
    }

    fn shape(&self, schema: &'s Json, root: bool, name: &str, depth: usize) -> Option<Arc<DeclType>> {
        if depth > MAX_DEPTH {
            return None;
        }
        if flag(schema, "x-kubernetes-int-or-string") || text(schema, "format") == "int-or-string" {
            let bytes = max_length(schema).unwrap_or(MAX_REQUEST_SIZE_BYTES - 2);
            return Some(DeclType::simple(Kind::IntOrString, bytes, 1));
        }
        match text(schema, "type") {
            "array" => self.list(schema, name, depth),
            "object" => self.object(schema, root, name, depth),
            "" if root => self.object(schema, root, name, depth),
            "string" => Some(string(schema)),
            "boolean" => Some(DeclType::boolean()),
            "number" => Some(DeclType::simple(Kind::Double, 0, 1)),
            "integer" => Some(DeclType::int()),
            _ => None,
        }
    }

    /// Follows `$ref`, also the one Kubernetes wraps in `allOf` to keep a description beside it.
    fn target(&self, schema: &'s Json) -> Option<&'s Json> {
        let mut schema = schema;
        for _ in 0..MAX_DEPTH {
            let wrapped = schema.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("$ref"));
            let Some(reference) = schema.get("$ref").or(wrapped).and_then(Json::as_str) else { return Some(schema) };
            schema = (self.resolve)(reference)?;
        }
        None
    }

    fn list(&self, schema: &'s Json, name: &str, depth: usize) -> Option<Arc<DeclType>> {
        let items = schema.get("items")?;
        let element =
            self.read(items, flag(items, "x-kubernetes-embedded-resource"), &format!("{name}.@idx"), depth + 1)?;
        let max = bound(schema, "maxItems").unwrap_or((MAX_REQUEST_SIZE_BYTES - 2) / (element.min_serialized_size + 1));
        let kind = match text(schema, "x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map(list_keys(schema)),
            _ => ListType::Atomic,
        };
        Some(DeclType::simple(Kind::List(element, kind), max, 2))
    }

    fn object(&self, schema: &'s Json, root: bool, name: &str, depth: usize) -> Option<Arc<DeclType>> {
        if let Some(values) = schema.get("additionalProperties").filter(|a| a.is_object()) {
            let embedded = flag(values, "x-kubernetes-embedded-resource");
            let value = self.read(values, embedded, &format!("{name}.@elem"), depth + 1)?;
            let max = bound(schema, "maxProperties")
                .unwrap_or((MAX_REQUEST_SIZE_BYTES - 2) / (value.min_serialized_size + 6));
            return Some(DeclType::simple(Kind::Map(value), max, 2));
        }
        let required: Vec<&str> =
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let mut fields = BTreeMap::new();
        let mut size = 2;
        for (property, below) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            if root && ["apiVersion", "kind", "metadata"].contains(&property.as_str()) {
                continue;
            }
            let embedded = flag(below, "x-kubernetes-embedded-resource");
            let Some(field) = self.read(below, embedded, &format!("{name}.{property}"), depth + 1) else { continue };
            if required.contains(&property.as_str()) && below.get("default").is_none() {
                size += property.len() as i64 + field.min_serialized_size + 4;
            }
            if let Some(ident) = escape(property) {
                fields.insert(ident.into_owned(), field);
            }
        }
        if root {
            self.resource_fields(schema, name, depth, &mut fields);
        }
        Some(DeclType::simple(Kind::Object(Object { name: name.into(), fields }), 0, size))
    }

    /// `apiVersion`, `kind` and `metadata`, of which a schema without references shows names only.
    fn resource_fields(
        &self,
        schema: &'s Json,
        name: &str,
        depth: usize,
        fields: &mut BTreeMap<String, Arc<DeclType>>,
    ) {
        let text = || string(&Json::Null);
        fields.insert("apiVersion".into(), text());
        fields.insert("kind".into(), text());
        let declared = schema
            .pointer("/properties/metadata")
            .filter(|m| self.target(m).is_some_and(|m| m.get("properties").is_some()));
        let known = declared.and_then(|metadata| self.read(metadata, false, &format!("{name}.metadata"), depth + 1));
        let plain = || DeclType::object(&format!("{name}.metadata"), [("name", text()), ("generateName", text())]);
        let has_names = |m: &Arc<DeclType>| m.field("name").is_some() && m.field("generateName").is_some();
        fields.insert("metadata".into(), known.filter(has_names).unwrap_or_else(plain));
    }
}

fn text<'j>(schema: &'j Json, key: &str) -> &'j str {
    schema.get(key).and_then(Json::as_str).unwrap_or("")
}

fn flag(schema: &Json, key: &str) -> bool {
    schema.get(key).and_then(Json::as_bool).unwrap_or(false)
}

fn bound(schema: &Json, key: &str) -> Option<i64> {
    schema.get(key).and_then(Json::as_i64).map(|n| n.max(0))
}

/// `maxLength` counts characters; estimates count bytes, at most four to a character.
fn max_length(schema: &Json) -> Option<i64> {
    bound(schema, "maxLength").map(|n| n.saturating_mul(4))
}

fn list_keys(schema: &Json) -> Vec<String> {
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
    keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn string(schema: &Json) -> Arc<DeclType> {
    match text(schema, "format") {
        "byte" => DeclType::simple(Kind::Bytes, bound(schema, "maxLength").unwrap_or(MAX_REQUEST_SIZE_BYTES - 2), 2),
        "duration" => DeclType::simple(Kind::Duration, 32, 3),
        "date" => DeclType::simple(Kind::Date, 12, 12),
        "date-time" => DeclType::simple(Kind::Timestamp, 32, 21),
        _ => {
            let longest = schema
                .get("enum")
                .and_then(Json::as_array)
                .and_then(|e| e.iter().filter_map(Json::as_str).map(str::len).max());
            let max = max_length(schema).or(longest.map(|n| n as i64)).unwrap_or(MAX_REQUEST_SIZE_BYTES - 2);
            DeclType::simple(Kind::String, max, 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas() {
        #[track_caller]
        fn check(schema: &Json, expect: Option<(&str, i64, i64)>) {
            let decl = DeclType::from_schema(schema, false);
            let got = decl.map(|d| (d.cel_type().to_string(), d.max_elements, d.min_serialized_size));
            assert_eq!(got.as_ref().map(|(t, m, s)| (t.as_str(), *m, *s)), expect);
        }
        check(&json!({"type": "string", "maxLength": 5}), Some(("string", 20, 2)));
        check(&json!({"type": "string", "enum": ["a", "abc"]}), Some(("string", 3, 2)));
        check(&json!({"type": "array", "items": {"type": "integer"}}), Some(("list(int)", 1_572_863, 2)));
        check(
            &json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Some(("map(string, string)", 393_215, 2)),
        );
        check(&json!({"x-kubernetes-preserve-unknown-fields": true}), None);
        check(&json!({"x-kubernetes-int-or-string": true}), Some(("dyn", 3_145_726, 1)));
        check(
            &json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            Some(("selfType", 0, 9)),
        );
    }

    #[test]
    fn resources_have_names() {
        let decl = DeclType::from_schema(&json!({"type": "object", "properties": {"a.b": {"type": "integer"}}}), true)
            .unwrap();
        assert_eq!(decl.field("a__dot__b").unwrap().cel_type(), Type::Int);
        assert_eq!(decl.field("metadata").unwrap().field("name").unwrap().cel_type(), Type::String);
    }
}
