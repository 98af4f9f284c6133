//! Answers: objects and errors in the form the client accepts.

use super::{Request, table};
use crate::body::{self, Body};
use crate::media::{Format, Media, Shape};
use crate::registry::Resource;
use crate::store::Stored;
use api::{Object, Status};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Response};
use serde_json::Value;
use std::io::Write;

/// Smaller answers are not worth compressing.
const GZIP_FROM: usize = 128 * 1024;

/// The answer with one stored object.
pub fn object(request: &Request, resource: &Resource, stored: &Stored, code: u16) -> Result<Response<Body>, Status> {
    let media = request.media()?;
    crate::media::check_shape(&request.headers, media, false, &resource.kind, &resource.group)?;
    match (media.format, media.shape, media.pretty) {
        (Format::Json, Shape::Object, false) => Ok(bytes(request, code, Format::Json, resource.whole(stored)?)),
        (Format::Protobuf, Shape::Object, _) => {
            let message = message(resource, stored)?;
            let enveloped = schema::envelope(&resource.api_version(), &resource.kind, &message);
            Ok(bytes(request, code, Format::Protobuf, enveloped.into()))
        }
        (_, Shape::Object, _) => value(request, code, media, &resource.whole_object(stored)?),
        (_, Shape::Table, _) => {
            let table = table::table(request, resource, &[resource.whole_object(stored)?], table::Meta::of(stored))?;
            value(request, code, media, &table::in_version(table, request))
        }
        (_, Shape::Partial, _) => {
            let partial = table::partial(&resource.whole_object(stored)?);
            value(request, code, media, &table::in_version(partial, request))
        }
    }
}

/// The protobuf message of a stored object.
pub fn message(resource: &Resource, stored: &Stored) -> Result<Bytes, Status> {
    let make = || schema::message(resource.schema, &resource.whole_object(stored)?).map_err(Status::internal);
    // Another version than the stored one has another message.
    if resource.shows_stored() { stored.message(make) } else { make().map(Bytes::from) }
}

/// The answer with a value that is not stored (a review, a scale, a `Status`).
pub fn value(request: &Request, code: u16, media: Media, value: &Value) -> Result<Response<Body>, Status> {
    Ok(bytes(request, code, media.format, encode(media, value)?))
}

/// As [`value`], in whichever form the client accepts.
pub fn plain(request: &Request, code: u16, object: &Object) -> Result<Response<Body>, Status> {
    let mut media = crate::media::negotiate(&request.headers, &request.query, true)?;
    // What is no API object (`/version`, the paths) is always JSON.
    if object.get("kind").is_none() {
        media.format = Format::Json;
    }
    value(request, code, media, object)
}

/// Encodes a value.
pub fn encode(media: Media, value: &Value) -> Result<Bytes, Status> {
    let out = match media.format {
        Format::Json if media.pretty => {
            let mut out = serde_json::to_vec_pretty(value).map_err(Status::internal)?;
            out.push(b'\n');
            out
        }
        Format::Json => serde_json::to_vec(value).map_err(Status::internal)?,
        Format::Yaml => serde_saphyr::to_string(value).map_err(Status::internal)?.into_bytes(),
        Format::Protobuf => protobuf(value)?,
    };
    Ok(out.into())
}

fn protobuf(value: &Value) -> Result<Vec<u8>, Status> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    // Discovery of the core group names no version of its own.
    let version = if text("apiVersion").is_empty() { "v1" } else { text("apiVersion") };
    let schema = api::GroupVersion::parse(version)
        .and_then(|gv| schema::schema_name(&gv.group, &gv.version, text("kind")));
    schema::to_protobuf(schema.unwrap_or(""), value).map_err(Status::internal)
}

/// The answer with encoded bytes.
pub fn bytes(request: &Request, code: u16, format: Format, bytes: Bytes) -> Response<Body> {
    let (bytes, compressed) = compress(&request.headers, bytes);
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.name()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn compress(headers: &HeaderMap, bytes: Bytes) -> (Bytes, bool) {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("");
    if bytes.len() < GZIP_FROM || !accepted.split(',').any(|e| e.trim() == "gzip") {
        return (bytes, false);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
        Ok(compressed) => (compressed.into(), true),
        Err(_) => (bytes, false),
    }
}

/// The answer to a failed request.
pub fn failure(request: &Request, status: &Status) -> Response<Body> {
    // What cannot be negotiated is told in JSON.
    let media = crate::media::negotiate(&request.headers, &request.query, true).ok();
    let format = media.map_or(Format::Json, |m| m.format);
    let media = Media { format, shape: Shape::Object, pretty: media.is_some_and(|m| m.pretty) };
    let json = Media { format: Format::Json, ..media };
    let (format, bytes_) = match encode(media, &status.to_object()) {
        Ok(encoded) => (format, encoded),
        Err(_) => (Format::Json, encode(json, &status.to_object()).unwrap_or_default()),
    };
    let mut response = bytes(request, status.code, format, bytes_);
    if let Some(seconds) = status.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers.
pub fn add_warnings(response: &mut Response<Body>, warnings: Vec<String>) {
    for text in warnings {
        let mut quoted = String::with_capacity(text.len() + 8);
        for c in text.chars().filter(|c| !c.is_control()) {
            if matches!(c, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// A plain text answer.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(body::full(text.into()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
