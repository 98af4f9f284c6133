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
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The type of a place in an object.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    fact: FieldFact,
    scalar: Option<Scalar>,
}

/// The types of those fields of a struct that were met.
type Fields = Rc<RefCell<HashMap<Box<str>, Rc<Node>>>>;

/// The types below a node.
enum Below<'a> {
    /// Those of a struct's fields.
    Fields(&'a Typed<'a>, &'a Node, Fields),
    /// The one of all values of a map.
    Values(Rc<Node>),
    /// Nothing is known.
    Untyped(&'a Typed<'a>),
}

impl Below<'_> {
    /// Type of a field or map value, and whether the schema declares the field.
    fn field(&self, key: &str) -> (Rc<Node>, bool) {
        match self {
            Self::Fields(typed, node, fields) => match typed.declared(node, fields, key) {
                Some(field) => (field, true),
                None => (typed.untyped.clone(), false),
            },
            Self::Values(node) => (node.clone(), false),
            Self::Untyped(typed) => (typed.untyped.clone(), false),
        }
    }
}

/// Walks objects of one schema.
pub(crate) struct Typed<'a> {
    pub(crate) facts: &'a dyn Facts,
    pub(crate) schema: &'a str,
    structs: RefCell<HashMap<Box<str>, Fields>>,
    untyped: Rc<Node>,
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Typed<'a> {
    pub(crate) fn new(facts: &'a dyn Facts, schema: &'a str) -> Self {
        let untyped = Node { fact: FieldFact { shape: Shape::Untyped, ..FieldFact::default() }, scalar: None };
        Self { facts, schema, structs: RefCell::default(), untyped: Rc::new(untyped) }
    }
}

impl Typed<'_> {
    pub(crate) fn root(&self) -> Node {
        let fact = match self.schema {
            "" => FieldFact { shape: Shape::Untyped, ..FieldFact::default() },
            schema => FieldFact { shape: Shape::Struct, schema: schema.to_owned().into(), ..FieldFact::default() },
        };
        Node { fact, scalar: None }
    }

    /// Type of a field that the schema of a struct declares. Looked up once: a list may have it in each element.
    fn declared(&self, node: &Node, fields: &Fields, key: &str) -> Option<Rc<Node>> {
        if let Some(known) = fields.borrow().get(key) {
            return Some(known.clone());
        }
        let schema = &node.fact.schema;
        let field = Node { fact: self.facts.field(schema, key)?, scalar: self.facts.scalar(schema, key) };
        let field = Rc::new(field);
        fields.borrow_mut().insert(key.into(), field.clone());
        Some(field)
    }

    /// The types of all fields or values of a node.
    fn below<'n>(&'n self, node: &'n Node) -> Below<'n> {
        match node.fact.shape {
            Shape::Struct => Below::Fields(self, node, self.fields(&node.fact.schema)),
            Shape::Map => Below::Values(Rc::new(self.element(node))),
            _ => Below::Untyped(self),
        }
    }

    fn fields(&self, schema: &str) -> Fields {
        let known = self.structs.borrow().get(schema).cloned();
        known.unwrap_or_else(|| self.structs.borrow_mut().entry(schema.into()).or_default().clone())
    }

    /// Type of the elements of a list or map.
    fn element(&self, node: &Node) -> Node {
        if let Some((fact, scalar)) = self.facts.element(&node.fact.schema) {
            return Node { fact, scalar };
        }
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
        let element = self.element(node);
        let child = |item| {
            let key = self.path_element(node, item).ok()?;
            Some((key.into(), self.field_set(&element, item).with_member(true)))
        };
        // Of duplicates only the element itself is a member.
        FieldSet::of(items.iter().filter_map(child).collect(), |_, _| FieldSet::leaf())
    }

    fn map_set(&self, node: &Node, map: &Map<String, Value>) -> FieldSet {
        let below = self.below(node);
        let child = |(key, value): (&String, &Value)| {
            let (child, declared) = below.field(key);
            let mut set = self.field_set(&child, value);
            set.member |= !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty);
            (!set.is_empty()).then(|| (["f:", key].concat().into(), set))
        };
        FieldSet::of(map.iter().filter_map(child).collect(), |first, _| first)
    }

    /// Makes members of every declared field that leads to a member.
    pub(crate) fn with_named_fields(&self, node: &Node, set: &FieldSet) -> FieldSet {
        let fields = self.below(node);
        let named = |(key, child): &(Box<str>, FieldSet)| {
            let (below, declared) = match key.strip_prefix("f:") {
                Some(field) => fields.field(field),
                None => (Rc::new(self.element(node)), false),
            };
            let is_leaf = child.children().is_empty();
            let mut child = if is_leaf { child.clone() } else { self.with_named_fields(&below, child) };
            child.member |= declared && !is_leaf;
            (key.clone(), child)
        };
        let children = set.children().iter().map(named).collect();
        FieldSet::of(children, |first, _| first).with_member(set.member)
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
