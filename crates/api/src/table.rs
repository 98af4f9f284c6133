//! `meta.k8s.io/v1` Table: what kubectl prints.

use serde_json::{Value, json};

/// A printer column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Header in title case; kubectl prints it in upper case.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the primary identifier.
    pub format: &'static str,
    /// Text for people; empty where it is that of [`Column::field`].
    pub description: &'static str,
    /// Schema and name of the field whose description is the column's; the API server looks it up.
    pub field: Option<(&'static str, &'static str)>,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A string column that is always shown.
    pub const fn string(name: &'static str) -> Self {
        Self { name, kind: "string", format: "", description: "", field: None, priority: 0 }
    }

    /// An integer column that is always shown.
    pub const fn integer(name: &'static str) -> Self {
        Self { name, kind: "integer", format: "", description: "", field: None, priority: 0 }
    }

    /// The `Name` column.
    pub const fn name() -> Self {
        Self { name: "Name", kind: "string", format: "name", description: "", field: None, priority: 0 }
    }

    /// The same column, shown with `-o wide` only.
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    /// The same column with a description.
    pub const fn describe(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// The same column, described by a field: `("io.k8s.api.core.v1.PodSpec", "nodeName")`.
    pub const fn field(mut self, schema: &'static str, field: &'static str) -> Self {
        self.field = Some((schema, field));
        self
    }

    /// The column's definition on the wire, without the description of its field.
    pub fn to_object(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority})
    }
}
