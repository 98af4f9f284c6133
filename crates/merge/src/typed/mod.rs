//! Walking values by their facts: field sets, comparison, merging, removal, validation
//! (what structured-merge-diff does).

mod atomics;
mod compare;
mod merge;
mod remove;
mod validate;

use crate::set::FieldSet;
use crate::{Facts, FieldFact, ListType, Scalar, Shape};
pub(crate) use compare::Comparison;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The type of a place in an object.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    fact: FieldFact,
    scalar: Option<Scalar>,
}

/// The types below a node; the values of a map share theirs.
struct Below<'a> {
    typed: &'a Typed<'a>,
    node: &'a Node,
    element: Option<Node>,
}

impl Below<'_> {
    /// Type of a field or map value, and whether the schema declares the field.
    fn field(&self, key: &str) -> (Cow<'_, Node>, bool) {
        match &self.element {
            Some(element) => (Cow::Borrowed(element), false),
            None => {
                let (node, declared) = self.typed.child(self.node, key);
                (Cow::Owned(node), declared)
            }
        }
    }
}

/// Walks objects of one schema.
pub(crate) struct Typed<'a> {
    pub(crate) facts: &'a dyn Facts,
    pub(crate) schema: &'a str,
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl Typed<'_> {
    pub(crate) fn root(&self) -> Node {
        let fact = match self.schema {
            "" => FieldFact { shape: Shape::Untyped, ..FieldFact::default() },
            schema => FieldFact { shape: Shape::Struct, schema: schema.to_owned().into(), ..FieldFact::default() },
        };
        Node { fact, scalar: None }
    }

    /// Type of a field or map value, and whether the schema declares the field.
    fn child(&self, node: &Node, key: &str) -> (Node, bool) {
        let undeclared =
            || (Node { fact: FieldFact { shape: Shape::Untyped, ..FieldFact::default() }, scalar: None }, false);
        match node.fact.shape {
            Shape::Struct => match self.facts.field(&node.fact.schema, key) {
                Some(fact) => (Node { fact, scalar: self.facts.scalar(&node.fact.schema, key) }, true),
                None => undeclared(),
            },
            Shape::Map => (self.element(node), false),
            _ => undeclared(),
        }
    }

    /// The types of all fields or values of a node.
    fn below<'n>(&'n self, node: &'n Node) -> Below<'n> {
        Below { typed: self, node, element: (node.fact.shape == Shape::Map).then(|| self.element(node)) }
    }

    /// Type of the elements of a list or map.
    fn element(&self, node: &Node) -> Node {
        let shape = if node.fact.schema.is_empty() { Shape::Untyped } else { Shape::Struct };
        let atomic = shape == Shape::Struct && self.facts.is_atomic(&node.fact.schema);
        let fact = FieldFact { shape, schema: node.fact.schema.clone(), atomic, ..FieldFact::default() };
        Node { fact, scalar: node.scalar }
    }

    /// What an element of an associative list is known by.
    fn path_element(&self, node: &Node, item: &Value) -> Result<String, String> {
        if node.fact.list_type == ListType::Set {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(format!("v:{scalar}")),
            };
        }
        let Value::Object(item) = item else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let mut keys = Map::new();
        for key in &node.fact.list_map_keys {
            let default = || self.facts.key_default(&node.fact.schema, key);
            if let Some(value) = item.get(&**key).cloned().or_else(default) {
                keys.insert(key.to_string(), value);
            }
        }
        if keys.is_empty() {
            let names: Vec<String> = node.fact.list_map_keys.iter().map(|k| format!("{k:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        Ok(format!("k:{}", Value::Object(keys)))
    }

    /// The fields a value sets.
    pub(crate) fn field_set(&self, node: &Node, value: &Value) -> FieldSet {
        match value {
            Value::Array(items) if !is_leaf(node, value) => self.list_set(node, items),
            Value::Object(map) if !is_leaf(node, value) => self.map_set(node, map),
            _ => FieldSet::leaf(),
        }
    }

    fn list_set(&self, node: &Node, items: &[Value]) -> FieldSet {
        let (mut out, element) = (FieldSet::default(), self.element(node));
        for item in items {
            let Ok(key) = self.path_element(node, item) else { continue };
            let child = FieldSet { member: true, ..self.field_set(&element, item) };
            // Of duplicates only the element itself is a member.
            out.children.entry(key).and_modify(|old| *old = FieldSet::leaf()).or_insert(child);
        }
        out
    }

    fn map_set(&self, node: &Node, map: &Map<String, Value>) -> FieldSet {
        let below = self.below(node);
        let child = |(key, value): (&String, &Value)| {
            let (child, declared) = below.field(key);
            let mut set = self.field_set(&child, value);
            set.member |= !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty);
            (!set.is_empty()).then(|| (["f:", key].concat(), set))
        };
        FieldSet { member: false, children: map.iter().filter_map(child).collect() }
    }

    /// Makes members of every declared field that leads to a member.
    pub(crate) fn with_named_fields(&self, node: &Node, set: &FieldSet) -> FieldSet {
        let mut out = FieldSet { member: set.member, ..FieldSet::default() };
        for (key, child) in &set.children {
            let (below, declared) = match key.strip_prefix("f:") {
                Some(field) => self.child(node, field),
                None => (self.element(node), false),
            };
            let mut child =
                if child.children.is_empty() { child.clone() } else { self.with_named_fields(&below, child) };
            child.member |= declared && !child.children.is_empty();
            out.children.insert(key.clone(), child);
        }
        out
    }
}

/// Whether the value is owned as a whole.
fn is_leaf(node: &Node, value: &Value) -> bool {
    match (node.fact.shape, value) {
        (Shape::Scalar, _) => true,
        (Shape::List, Value::Array(_)) => node.fact.list_type == ListType::Atomic,
        (Shape::Struct | Shape::Map, Value::Object(_)) => node.fact.atomic,
        (Shape::Untyped, Value::Object(_)) => node.fact.atomic,
        // Null stands for an empty list or map of the type.
        (Shape::List, Value::Null) => node.fact.list_type == ListType::Atomic,
        (Shape::Struct | Shape::Map, Value::Null) => node.fact.atomic,
        _ => true,
    }
}

/// A map, empty where the value is none.
fn entries(value: Option<&Value>) -> &Map<String, Value> {
    value.and_then(Value::as_object).unwrap_or(&EMPTY)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_list(node: &Node) -> bool {
    node.fact.shape == Shape::List
}
