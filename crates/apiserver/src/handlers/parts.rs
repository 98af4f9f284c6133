//! Rows and partial objects of objects that are shown as they are stored: their metadata is copied as text, and what
//! no column shows is not parsed.

use super::Request;
use crate::media::Shape;
use crate::registry::Resource;
use crate::store::Stored;
use crate::store::members::{Member, Members};
use api::{Object, Status};
use serde_json::Value;

/// What is made of each object of a list.
pub enum Part {
    /// A row, with the metadata or without.
    Row { metadata: bool, version: &'static str },
    /// A partial object.
    Metadata { version: &'static str },
}

impl Part {
    /// The part that a list of this shape has of each object; `None` where it needs the objects.
    pub fn of(request: &Request, resource: &Resource, shape: Shape, version: &'static str) -> Option<Self> {
        if !resource.shows_stored() {
            return None;
        }
        match (shape, request.query.get("includeObject")) {
            (Shape::Object, _) => None,
            (Shape::Table, include @ ("" | "None" | "Metadata")) if resource.custom.is_none() => {
                Some(Self::Row { metadata: include != "None", version })
            }
            (Shape::Table, _) => None,
            _ => Some(Self::Metadata { version }),
        }
    }

    /// Appends it.
    pub fn append(
        &self,
        request: &Request,
        resource: &Resource,
        stored: &Stored,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let json = &stored.json;
        let metadata = member(json, 1, "metadata").ok_or_else(|| Status::internal("an object without metadata"))?;
        let partial = |version: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(b"{\"apiVersion\":\"");
            out.extend_from_slice(version.as_bytes());
            out.extend_from_slice(b"\",\"kind\":\"PartialObjectMetadata\",\"metadata\":");
            out.extend_from_slice(&json[metadata.value.0..metadata.value.1]);
            out.push(b'}');
        };
        match self {
            Self::Metadata { version } => partial(version, out),
            Self::Row { metadata: shown, version } => {
                let object = without_managed_fields(json, &metadata)?;
                let cells = Value::Array(resource.strategy.row(&object, request.now));
                out.extend_from_slice(b"{\"cells\":");
                serde_json::to_writer(&mut *out, &cells).map_err(Status::internal)?;
                out.extend_from_slice(b",\"object\":");
                match shown {
                    true => partial(version, out),
                    false => out.extend_from_slice(b"null"),
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

fn member(json: &[u8], at: usize, key: &str) -> Option<Member> {
    Members::new(json, at).find(|member| json[member.key.0..member.key.1] == *key.as_bytes())
}

/// Parses an object but for its managedFields, which may be half of it.
fn without_managed_fields(json: &[u8], metadata: &Member) -> Result<Object, Status> {
    let Some(managed) = member(json, metadata.value.0 + 1, "managedFields") else {
        return serde_json::from_slice(json).map_err(Status::internal);
    };
    // With the comma after it or, of the last member, the one before it.
    let (mut from, mut to) = (managed.key.0 - 1, managed.value.1);
    match (json.get(to), json.get(from - 1)) {
        (Some(b','), _) => to += 1,
        (_, Some(b',')) => from -= 1,
        _ => {}
    }
    serde_json::from_slice(&[&json[..from], &json[to..]].concat()).map_err(Status::internal)
}

/// A list of parts that is being written.
#[derive(Default)]
pub struct Items {
    /// The text so far.
    pub text: Vec<u8>,
    some: bool,
}

impl Items {
    /// One that begins with this text.
    pub fn after(text: String) -> Self {
        Self { text: text.into_bytes(), some: false }
    }

    /// Where the next item is written.
    pub fn next(&mut self) -> &mut Vec<u8> {
        if std::mem::replace(&mut self.some, true) {
            self.text.push(b',');
        }
        &mut self.text
    }
}

/// What `part` is of: rows of a table, items of a list.
pub fn name(list: &Value) -> &'static str {
    if list.get("rows").is_some() { "rows" } else { "items" }
}

/// The objects of a page in the form of the list they are of.
pub fn append_shown(list: &Value, items: &mut Items) -> Result<(), Status> {
    for item in list.get(name(list)).and_then(Value::as_array).into_iter().flatten() {
        serde_json::to_writer(items.next(), item).map_err(Status::internal)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn managed_fields_are_not_parsed() {
        let check = |metadata: Value| {
            let mut object =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"managedFields": 1}});
            let text = object.to_string().into_bytes();
            let metadata = member(&text, 1, "metadata").expect("metadata");
            object["metadata"].as_object_mut().expect("a map").remove("managedFields");
            assert_eq!(without_managed_fields(&text, &metadata).ok(), Some(object));
        };
        check(json!({"name": "a"}));
        check(json!({"managedFields": [{"fieldsV1": {"f:a": {}}}]}));
        check(json!({"annotations": {"managedFields": "{\",}"}, "managedFields": [{}], "name": "a"}));
        check(json!({"annotations": {}, "managedFields": []}));
    }
}
