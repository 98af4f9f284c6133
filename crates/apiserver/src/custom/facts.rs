//! What merging needs to know of custom resources: the nodes of their schema, named `#<index>`.

use super::Definition;
use crate::registry::facts::BuiltIn;
use merge::{FieldFact, ListType, Scalar, Shape};
use resources::structural::{self, Kind, Node};
use serde_json::Value;

/// Name of the root's node.
pub const ROOT: &str = "#0";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Definition {
    fn named(&self, schema: &str) -> Option<&Node> {
        let at: usize = schema.strip_prefix('#')?.parse().ok()?;
        self.schema.has(at).then(|| self.schema.node(at))
    }

    fn fact(&self, at: usize) -> FieldFact {
        let node = self.schema.node(at);
        let below = |at: Option<usize>| at.filter(|at| has_parts(self.schema.node(*at))).map_or(String::new(), name);
        match node.kind {
            Kind::Array => FieldFact {
                shape: Shape::List,
                schema: below(node.items).into(),
                list_type: match node.list_type {
                    structural::ListType::Atomic => ListType::Atomic,
                    structural::ListType::Set => ListType::Set,
                    structural::ListType::Map => ListType::Map,
                },
                list_map_keys: node.list_keys.iter().map(|k| k.clone().into()).collect(),
                ..FieldFact::default()
            },
            Kind::Object if node.additional.is_some() => FieldFact {
                shape: Shape::Map,
                schema: below(node.additional).into(),
                atomic: node.atomic,
                ..FieldFact::default()
            },
            Kind::Object => FieldFact {
                shape: if is_struct(node) { Shape::Struct } else { Shape::Untyped },
                schema: if is_struct(node) { name(at).into() } else { "".into() },
                atomic: node.atomic,
                ..FieldFact::default()
            },
            Kind::Any => FieldFact { shape: Shape::Untyped, ..FieldFact::default() },
            _ => FieldFact::default(),
        }
    }

    fn scalar_of(&self, at: usize) -> Option<Scalar> {
        let node = self.schema.node(at);
        match node.kind {
            _ if node.int_or_string => None,
            // A text with a format may be any scalar, but for bytes.
            Kind::String if !matches!(node.format(), "" | "byte") => Some(Scalar::Any),
            Kind::String => Some(Scalar::String),
            Kind::Integer | Kind::Number => Some(Scalar::Numeric),
            Kind::Boolean => Some(Scalar::Boolean),
            Kind::Array => self.scalar_of(node.items?),
            Kind::Object => self.scalar_of(node.additional?),
            Kind::Any => None,
        }
    }
}

fn name(at: usize) -> String {
    format!("#{at}")
}

/// Whether the fields of an object are known: one that keeps whatever it is given has none.
fn is_struct(node: &Node) -> bool {
    let free = node.preserve && node.properties.is_empty() && !node.embedded;
    node.kind == Kind::Object && node.additional.is_none() && !free && !node.additional_any
}

/// Whether something is known of what is in a value.
fn has_parts(node: &Node) -> bool {
    is_struct(node) || node.kind == Kind::Array || (node.kind == Kind::Object && node.additional.is_some())
}

impl merge::Facts for Definition {
    fn element(&self, schema: &str) -> Option<(FieldFact, Option<Scalar>)> {
        let at: usize = schema.strip_prefix('#')?.parse().ok()?;
        (self.schema.has(at) && !is_struct(self.schema.node(at))).then(|| (self.fact(at), self.scalar_of(at)))
    }

    fn field(&self, schema: &str, field: &str) -> Option<FieldFact> {
        let Some(node) = self.named(schema) else { return BuiltIn.field(schema, field) };
        match field {
            "apiVersion" | "kind" if schema == ROOT || node.embedded => return Some(FieldFact::default()),
            "metadata" if schema == ROOT || node.embedded => {
                return Some(FieldFact { shape: Shape::Struct, schema: OBJECT_META.into(), ..FieldFact::default() });
            }
            _ => {}
        }
        match node.properties.get(field) {
            Some(at) => Some(self.fact(*at)),
            None if node.preserve => Some(FieldFact { shape: Shape::Untyped, ..FieldFact::default() }),
            None => None,
        }
    }

    fn scalar(&self, schema: &str, field: &str) -> Option<Scalar> {
        let Some(node) = self.named(schema) else { return BuiltIn.scalar(schema, field) };
        match field {
            "apiVersion" | "kind" if schema == ROOT || node.embedded => Some(Scalar::String),
            _ => self.scalar_of(*node.properties.get(field)?),
        }
    }

    fn reset_fields(&self, _schema: &str, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "" if self.status => &[&["status"]],
            "status" => &[&["spec"]],
            _ => &[],
        }
    }

    fn key_default(&self, schema: &str, key: &str) -> Option<Value> {
        let Some(node) = self.named(schema) else { return BuiltIn.key_default(schema, key) };
        self.schema.node(*node.properties.get(key)?).default.clone()
    }
}
