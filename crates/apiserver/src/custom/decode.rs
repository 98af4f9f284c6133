//! Decoding of request bodies, of custom resources as of others.

use super::Definition;
use crate::handlers::Request;
use crate::media::{self, Format};
use crate::registry::Resource;
use crate::registry::decode::{self, Expected, canonical_quantity, validate_fields};
use api::{Cause, Object, Status};
use serde_json::Value;

/// Reads and decodes the body of a create or update of a resource.
pub async fn body(request: &Request, resource: &Resource) -> Result<Object, Status> {
    match &resource.custom {
        None => built_in_body(request, resource).await,
        Some(custom) => custom_body(request, resource, custom).await,
    }
}

async fn built_in_body(request: &Request, resource: &Resource) -> Result<Object, Status> {
    let object = decode::body(request, &Expected::new(resource.schema, &resource.gvk())).await?;
    let (version, kind) = (&resource.version, &resource.kind);
    match resource.strategy.unreadable(&object) {
        Some(why) => {
            Err(Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}")))
        }
        None => Ok(object),
    }
}

async fn custom_body(request: &Request, resource: &Resource, custom: &Definition) -> Result<Object, Status> {
    let format = Format::of_content_type(&request.headers).ok_or_else(media::unsupported)?;
    let bytes = request.read_body().await?;
    let (version, kind) = (&resource.version, &resource.kind);
    let failed =
        |why: &str| Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"));
    let (mut object, twice) = match format {
        Format::Json => {
            decode::peek(&bytes).map_err(|why| decode::unrecognized(kind, &why, &bytes))?;
            (parse(&bytes).map_err(|why| failed(&why))?, None)
        }
        Format::Yaml => decode::of_yaml(&bytes, kind)?,
        Format::Protobuf => return Err(media::unsupported()),
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    if text("kind").is_empty() {
        let shown = String::from_utf8_lossy(&bytes);
        return Err(decode::unrecognized(kind, &format!("Object 'Kind' is missing in '{shown}'"), &bytes));
    }
    let (found, want) = (text("apiVersion").to_owned(), resource.api_version());
    if found != want {
        return Err(Status::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({want})"
        )));
    }
    if text("kind") != kind {
        let (other, name) = (text("kind"), api::meta::name(&object));
        let cause = Cause::invalid("kind", &other.into(), &format!("must be {kind}"));
        return Err(Status::invalid(&resource.group, other, name, &[cause]));
    }
    let mut strict = if format == Format::Json { schema::duplicate_fields(&bytes) } else { Vec::from_iter(twice) };
    strict.extend(custom.clean(&mut object).map_err(|why| failed(&why))?);
    validate_fields(request, strict, &|list| failed(&format!("strict decoding error: {list}")))?;
    Ok(object)
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|_| {
        // The decoder of `schema` words syntax errors as Go does.
        let why = schema::decode_slice("io.k8s.apimachinery.pkg.apis.meta.v1.Status", bytes, canonical_quantity);
        let why = why.err().unwrap_or_default();
        why.strip_prefix("syntax: ").unwrap_or(&why).to_owned()
    })
}
