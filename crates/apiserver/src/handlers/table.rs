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
        // What was only tried has no version.
        match stored.meta.resource_version {
            0 => Self(json!({})),
            version => Self(json!({"resourceVersion": version.to_string()})),
        }
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
    let include = included(request)?;
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

/// A table with one row, of an object that is not stored.
pub fn of_one(request: &Request, object: &Object, columns: &[Column], cells: Value) -> Result<Value, Status> {
    let include = included(request)?;
    let mut definitions: Vec<_> = columns.iter().map(Column::to_object).collect();
    describe(definitions.iter_mut(), columns);
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("");
    Ok(json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
        "columnDefinitions": definitions, "rows": [{"cells": cells, "object": shown(object, include)}]}))
}

/// What the rows of a table hold of their objects.
fn included(request: &Request) -> Result<&str, Status> {
    let include = request.query.get("includeObject");
    if matches!(include, "" | "None" | "Metadata" | "Object") {
        return Ok(include);
    }
    let shown = api::quoted(include);
    let why = format!("includeObject: Invalid value: {shown}: must be 'Metadata', 'Object', 'None', or empty");
    Err(Status::bad_request(format!("Unable to convert to Table as requested: {why}")))
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

/// A table, partial object or list of them in the version of `meta.k8s.io` that the client asks for.
pub fn in_version(mut shown: Value, request: &Request) -> Value {
    let version = crate::media::meta_version(&request.headers);
    if version != "meta.k8s.io/v1" {
        shown["apiVersion"] = version.into();
        for row in shown.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
            if row.pointer("/object/kind").and_then(Value::as_str) == Some("PartialObjectMetadata") {
                row["object"]["apiVersion"] = version.into();
            }
        }
        for item in shown.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            item["apiVersion"] = version.into();
        }
    }
    shown
}

/// An object as `PartialObjectMetadata`.
pub fn partial(object: &Object) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_default();
    // Go makes it of its internal form, where this is a field of the spec.
    if object.get("kind").and_then(Value::as_str) == Some("DaemonSet")
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove("deprecated.daemonset.template.generation");
        if annotations.is_empty()
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_a_field_has_its_description() {
        for row in resources::table::ROWS {
            let columns = row.strategy.columns();
            let mut definitions: Vec<_> = columns.iter().map(Column::to_object).collect();
            describe(definitions.iter_mut(), columns);
            for (definition, column) in definitions.iter().zip(columns) {
                let described = definition["description"].as_str().is_some_and(|d| !d.is_empty());
                assert!(described || column.field.is_none(), "{}: {definition}", row.resource);
            }
        }
    }

    #[test]
    fn a_description_is_that_of_the_field_or_the_columns_own() {
        let check = |column: Column, expect: &str| {
            let mut definition = [column.to_object()];
            describe(definition.iter_mut(), &[column]);
            assert_eq!(definition[0]["description"], expect);
        };
        check(Column::string("A").describe("own"), "own");
        check(Column::string("A"), "");
        let name = schema::description("io.k8s.api.core.v1.PodSpec", "nodeName").unwrap_or_default();
        check(Column::string("Node").field("io.k8s.api.core.v1.PodSpec", "nodeName"), &name);
    }
}
