//! LIST: the objects as slices of stored JSON, or as messages, put side by side.

use super::parts::{self, Items, Part};
use super::{Request, answer, options, table};
use crate::body::Body;
use crate::media::{Format, Media, Shape};
use crate::registry::Resource;
use crate::store::{ListResult, Stored};
use api::{Object, Status};
use http::Response;
use serde_json::{Map, Value, json};

/// Answers with a list.
pub async fn handle(request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    let media = request.media()?;
    let result = resource.store.list(options::list_options(request, resource)?).await?;
    crate::media::check_shape(&request.headers, media, true, &resource.list_kind(), &resource.group)?;
    if let Media { format: Format::Json, shape: Shape::Object, pretty: false } = media {
        let bytes = concatenate(resource, &result)?;
        return Ok(answer::bytes(request, 200, Format::Json, bytes.into()));
    }
    if let (Format::Protobuf, Shape::Object) = (media.format, media.shape) {
        let bytes = messages(resource, &result).await?;
        return Ok(answer::bytes(request, 200, Format::Protobuf, bytes.into()));
    }
    if media.shape == Shape::Object {
        let list = serde_json::from_slice::<Object>(&concatenate(resource, &result)?).map_err(Status::internal)?;
        return answer::value(request, 200, media, &list);
    }
    let shown = |objects: &[Object]| shown(request, resource, media.shape, &result, objects);
    if let (Format::Json, false) = (media.format, media.pretty) {
        let version = crate::media::meta_version(&request.headers);
        let part = Part::of(request, resource, media.shape, version);
        let append = |page: &[Stored], items: &mut Items| match &part {
            Some(part) => page.iter().try_for_each(|stored| part.append(request, resource, stored, items.next())),
            None => {
                let objects = page.iter().map(|s| resource.whole_object(s)).collect::<Result<Vec<_>, _>>()?;
                parts::append_shown(&shown(&objects)?, items)
            }
        };
        let bytes = in_turns(&result.items, &shown(&[])?, append).await?;
        return Ok(answer::bytes(request, 200, Format::Json, bytes.into()));
    }
    let objects = result.items.iter().map(|s| resource.whole_object(s)).collect::<Result<Vec<_>, _>>()?;
    answer::value(request, 200, media, &shown(&objects)?)
}

/// A table, or a list of partial objects.
fn shown(
    request: &Request,
    resource: &Resource,
    shape: Shape,
    result: &ListResult,
    objects: &[Object],
) -> Result<Value, Status> {
    let list = match shape {
        Shape::Table => table::table(request, resource, objects, table::Meta::of_list(result))?,
        _ => {
            let items: Vec<_> = objects.iter().map(table::partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata(result), "items": items})
        }
    };
    Ok(table::in_version(list, request))
}

/// Fills an empty list a page at a time: parsed, all objects would take ten times what they take as text.
async fn in_turns(
    objects: &[Stored],
    empty: &Value,
    append: impl Fn(&[Stored], &mut Items) -> Result<(), Status>,
) -> Result<Vec<u8>, Status> {
    let (text, part) = (empty.to_string(), parts::name(empty));
    // In a string the quotes would have backslashes.
    let (before, after) = text.split_once(&format!("\"{part}\":[]")).ok_or_else(|| Status::internal("no list"))?;
    let mut items = Items::after(format!("{before}\"{part}\":["));
    for page in objects.chunks(TURN) {
        append(page, &mut items)?;
        tokio::task::yield_now().await;
    }
    items.text.push(b']');
    items.text.extend_from_slice(after.as_bytes());
    Ok(items.text)
}

/// The metadata of a list.
pub fn metadata(result: &ListResult) -> Value {
    let mut map = Map::new();
    map.insert("resourceVersion".into(), result.resource_version.to_string().into());
    if !result.continue_token.is_empty() {
        map.insert("continue".into(), result.continue_token.clone().into());
        if let Some(remaining) = result.remaining {
            map.insert("remainingItemCount".into(), remaining.into());
        }
    }
    Value::Object(map)
}

/// The metadata of a list of objects; those of custom resources always name a token.
pub fn metadata_of(resource: &Resource, result: &ListResult) -> Value {
    let mut metadata = metadata(result);
    if resource.custom.is_some() && metadata.get("continue").is_none() {
        metadata["continue"] = "".into();
    }
    metadata
}

/// How many items are encoded before other requests get a turn.
const TURN: usize = 256;

async fn messages(resource: &Resource, result: &ListResult) -> Result<Vec<u8>, Status> {
    let mut list = schema::ListMessage::new(&metadata(result)).map_err(Status::internal)?;
    for page in result.items.chunks(TURN) {
        for stored in page {
            list.push(&answer::message(resource, stored)?);
        }
        tokio::task::yield_now().await;
    }
    Ok(list.finish(&resource.api_version(), &resource.list_kind()))
}

fn concatenate(resource: &Resource, result: &ListResult) -> Result<Vec<u8>, Status> {
    let size: usize = result.items.iter().map(|s| s.json.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    let (kind, version) = (resource.list_kind(), resource.api_version());
    let metadata = metadata_of(resource, result);
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#);
    out.extend_from_slice(head.as_bytes());
    for (at, stored) in result.items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        resource.append_item(stored, &mut out)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}
