//! Tables and partial objects: the other forms an object is shown in.

use super::Request;
use super::list;
use crate::registry::Resource;
use crate::store::{ListResult, Stored};
use api::table::Column;
use api::{Object, Status};
use serde_json::{Value, json};

/// The metadata of a table.
pub struct Meta(Value);

impl Meta {
    /// That of one object.
    pub fn of(stored: &Stored) -> Self {
        Self(json!({"resourceVersion": stored.meta.resource_version.to_string()}))
    }

    /// That of a list.
    pub fn of_list(result: &ListResult) -> Self {
        Self(list::metadata(result))
    }

    /// None, for the rows of a watch.
    pub fn version(version: &str) -> Self {
        Self(json!({"resourceVersion": version}))
    }
}

/// A table with a row for each object.
pub fn table(request: &Request, resource: &Resource, objects: &[Object], meta: Meta) -> Result<Value, Status> {
    let include = request.query.get("includeObject");
    if !matches!(include, "" | "None" | "Metadata" | "Object") {
        let why = "must be 'Metadata', 'Object', 'None', or empty";
        let cause = api::Cause::invalid("includeObject", &json!(include), why);
        return Err(crate::registry::decode::invalid_options("TableOptions", &[cause]));
    }
    if let Some(custom) = &resource.custom {
        let (mut columns, cells) = crate::custom::table(resource, custom, objects, request.now);
        // The name is every custom resource's; the age stands in where the definition has no columns.
        let own = if custom.columns.is_empty() { 2 } else { 1 };
        describe(columns.iter_mut().take(own), resource.strategy.columns());
        let rows = objects.iter().zip(cells).map(|(o, cells)| json!({"cells": cells, "object": shown(o, include)}));
        return Ok(json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta.0,
            "columnDefinitions": columns, "rows": rows.collect::<Vec<_>>()}));
    }
    let rows: Vec<_> = objects.iter().map(|object| row(request, resource, object, include)).collect();
    let mut columns: Vec<_> = resource.strategy.columns().iter().map(Column::to_object).collect();
    describe(columns.iter_mut(), resource.strategy.columns());
    Ok(json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta.0,
        "columnDefinitions": columns, "rows": rows}))
}

/// Gives the definitions of columns the descriptions of the fields they show.
fn describe<'a>(definitions: impl Iterator<Item = &'a mut Value>, columns: &[Column]) {
    for (definition, column) in definitions.zip(columns) {
        if let Some((schema, field)) = column.field {
            definition["description"] = schema::description(schema, field).unwrap_or_default().into();
        }
    }
}

fn row(request: &Request, resource: &Resource, object: &Object, include: &str) -> Value {
    let cells = match resource.convert {
        None => resource.strategy.row(object, request.now),
        Some(_) => resource.strategy.row(&resource.to_stored(object.clone()), request.now),
    };
    json!({"cells": cells, "object": shown(object, include)})
}

fn shown(object: &Object, include: &str) -> Value {
    match include {
        "None" => Value::Null,
        "Object" => object.clone(),
        _ => partial(object),
    }
}

/// An object as `PartialObjectMetadata`.
pub fn partial(object: &Object) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}
