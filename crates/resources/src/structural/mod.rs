//! Structural schemas: what a custom resource definition says of its objects, compiled once.
//!
//! A [`Schema`] is a flat list of nodes; node 0 is the root and nodes name others by index, so that merging can
//! name them as text. Objects go through [`Schema::prune`], [`Schema::default_object`] and [`Schema::validate`];
//! the definitions themselves are checked by `definition`.
//!
//! Rules in CEL are compiled with the schema, see `rules`.

mod correlate;
mod defaults;
pub(crate) mod definition;
mod embedded;
mod formats;
mod list_types;
mod numbers;
mod prune;
mod rules;
mod validate;

pub use prune::decode_metadata;

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::BTreeMap;

/// JSON type of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Not said.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

/// `x-kubernetes-list-type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Of unique values.
    Set,
    /// Of objects with unique keys.
    Map,
}

/// Bounds of a value; absent ones do not bind.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    maximum: Option<f64>,
    minimum: Option<f64>,
    exclusive_maximum: bool,
    exclusive_minimum: bool,
    multiple_of: Option<f64>,
    max_length: Option<usize>,
    min_length: Option<usize>,
    max_items: Option<usize>,
    min_items: Option<usize>,
    max_properties: Option<usize>,
    min_properties: Option<usize>,
    pattern: Option<Regex>,
    format: String,
    values: Vec<Value>,
    required: Vec<String>,
}

/// The schema of one place of an object.
#[derive(Debug, Default)]
pub struct Node {
    /// Type.
    pub kind: Kind,
    /// Whether null is a value.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// Fields.
    pub properties: BTreeMap<String, usize>,
    /// Values of a map.
    pub additional: Option<usize>,
    /// `additionalProperties: true`
    pub additional_any: bool,
    /// Elements of a list.
    pub items: Option<usize>,
    /// Default.
    pub default: Option<Value>,
    /// How a list merges.
    pub list_type: ListType,
    /// Keys of the elements of a map list.
    pub list_keys: Vec<String>,
    /// Whether an object is owned as a whole.
    pub atomic: bool,
    pub(crate) bounds: Bounds,
    pub(crate) rules: Option<rules::Rules>,
    pub(crate) all_of: Vec<usize>,
    pub(crate) any_of: Vec<usize>,
    pub(crate) one_of: Vec<usize>,
    pub(crate) not: Option<usize>,
}

impl Node {
    /// `format`, empty where it is not said.
    pub fn format(&self) -> &str {
        &self.bounds.format
    }
}

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    nodes: Vec<Node>,
    /// Whether the root is a whole object.
    whole: bool,
}

impl Schema {
    /// Compiles `openAPIV3Schema`; what is no schema there counts as absent.
    pub fn new(source: &Value) -> Self {
        Self::of(source, true)
    }

    /// Compiles a schema, of a whole object or of a part of one.
    pub(crate) fn of(source: &Value, whole: bool) -> Self {
        let mut schema = Self { nodes: Vec::new(), whole };
        schema.add(source);
        schema
    }

    /// The root.
    pub fn root(&self) -> &Node {
        self.node(0)
    }

    /// A node.
    pub fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// Whether there is such a node.
    pub fn has(&self, at: usize) -> bool {
        at < self.nodes.len()
    }

    /// Whether any place has a default.
    pub fn has_defaults(&self) -> bool {
        self.nodes.iter().any(|n| n.default.is_some())
    }

    fn add(&mut self, source: &Value) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node::default());
        let each = |schema: &mut Self, key: &str| -> Vec<usize> {
            source.get(key).and_then(Value::as_array).into_iter().flatten().map(|s| schema.add(s)).collect()
        };
        let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
        let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or("");
        let fields = source.get("properties").and_then(Value::as_object).into_iter().flatten();
        let properties = fields.map(|(k, v)| (k.clone(), self.add(v))).collect();
        let additional = source.get("additionalProperties");
        let node = Node {
            kind: kind(text("type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties,
            additional: additional.filter(|a| a.is_object()).map(|a| self.add(a)),
            additional_any: additional == Some(&Value::Bool(true)),
            items: source.get("items").filter(|i| i.is_object()).map(|i| self.add(i)),
            default: source.get("default").filter(|d| !d.is_null()).cloned(),
            list_type: match text("x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::Atomic,
            },
            list_keys: strings(source.get("x-kubernetes-list-map-keys")),
            atomic: text("x-kubernetes-map-type") == "atomic",
            bounds: bounds(source),
            // Rules are part of the structure only: `allOf` and its like have none.
            rules: rules::Rules::new(source, at == 0 && self.whole || flag("x-kubernetes-embedded-resource")),
            all_of: each(self, "allOf"),
            any_of: each(self, "anyOf"),
            one_of: each(self, "oneOf"),
            not: source.get("not").filter(|n| n.is_object()).map(|n| self.add(n)),
        };
        self.nodes[at] = node;
        at
    }
}

/// How large a compiled pattern may be: Go's repetitions of up to 1000 fit.
const PATTERN_MAX: usize = 32 << 20;

/// Compiles a pattern.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_MAX).build()
}

fn kind(name: &str) -> Kind {
    match name {
        "object" => Kind::Object,
        "array" => Kind::Array,
        "string" => Kind::String,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        _ => Kind::Any,
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn bounds(source: &Value) -> Bounds {
    let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
    let number = |key: &str| source.get(key).and_then(Value::as_f64);
    let count = |key: &str| source.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or("");
    Bounds {
        maximum: number("maximum"),
        minimum: number("minimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        pattern: Some(text("pattern")).filter(|p| !p.is_empty()).and_then(|p| compile(p).ok()),
        format: text("format").to_owned(),
        values: source.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        required: strings(source.get("required")),
    }
}
