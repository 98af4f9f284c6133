//! What form of an answer a client accepts, and what form its body has.

use crate::query::Query;
use api::Status;
use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What of an object a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All of it.
    Object,
    /// A row of a `Table`.
    Table,
    /// `PartialObjectMetadata` (or its list).
    Partial,
}

/// The negotiated form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// Encoding.
    pub format: Format,
    /// Shape.
    pub shape: Shape,
    /// Indented JSON.
    pub pretty: bool,
}

const NAMES: [(Format, &str); 3] = [
    (Format::Json, "application/json"),
    (Format::Yaml, "application/yaml"),
    (Format::Protobuf, "application/vnd.kubernetes.protobuf"),
];

impl Format {
    /// Its media type.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(f, _)| *f == self).map_or("", |(_, name)| name)
    }

    /// The format of a request body by its `Content-Type`; absent is JSON.
    pub fn of_content_type(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let name = value.split(';').next().unwrap_or("").trim();
        match name {
            "" | "*/*" => Some(Self::Json),
            _ => NAMES.iter().find(|(_, n)| *n == name).map(|(f, _)| *f),
        }
    }
}

struct Range<'a> {
    name: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let mut range = Self { name, quality: 1.0, parameters: Vec::new() };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            match key.trim() {
                "q" => range.quality = value.trim().parse().unwrap_or(1.0),
                key => range.parameters.push((key, value.trim())),
            }
        }
        range
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    fn format(&self) -> Option<Format> {
        match self.name {
            "*/*" | "application/*" => Some(Format::Json),
            name => NAMES.iter().find(|(_, n)| *n == name).map(|(f, _)| *f),
        }
    }

    fn shape(&self) -> Option<Shape> {
        let streams = self.get("stream").is_none_or(|s| s == "watch" && self.format() != Some(Format::Yaml));
        if !streams || self.get("sv").is_some_and(|version| version != "v1") {
            return None;
        }
        let Some(kind) = self.get("as") else {
            // A group or version without a kind asks for nothing that exists.
            return (self.get("g").is_none() && self.get("v").is_none()).then_some(Shape::Object);
        };
        if self.get("g") != Some("meta.k8s.io") || !matches!(self.get("v"), Some("v1" | "v1beta1")) {
            return None;
        }
        match kind {
            "Table" => Some(Shape::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::Partial),
            _ => None,
        }
    }
}

fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut out: Vec<_> = values.flat_map(|v| v.split(',')).map(|v| Range::parse(v.trim())).collect();
    out.retain(|r| !r.name.is_empty());
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

/// Whether `PartialObjectMetadata` was asked for where a list is answered, or its list for one object.
pub fn check_shape(headers: &HeaderMap, media: Media, list: bool, kind: &str, group: &str) -> Result<(), Status> {
    if media.shape != Shape::Partial {
        return Ok(());
    }
    let asked = ranges(headers).into_iter().find(|r| r.shape() == Some(Shape::Partial));
    let asked = asked.and_then(|r| r.get("as")).unwrap_or("");
    if (asked == "PartialObjectMetadataList") == list {
        return Ok(());
    }
    let package = crate::registry::decode::internal_package(group);
    let what = if list { "is a list" } else { "is not a list" };
    let message = format!("you requested {asked}, but the requested object {what} (*{package}.{kind})");
    Err(Status::new(406, "NotAcceptable", message))
}

/// The version of `meta.k8s.io` that tables and partial objects are asked for in.
pub fn meta_version(headers: &HeaderMap) -> &'static str {
    let asked = ranges(headers).into_iter().find(|r| matches!(r.shape(), Some(Shape::Table | Shape::Partial)));
    match asked.and_then(|r| r.get("v")) {
        Some("v1beta1") => "meta.k8s.io/v1beta1",
        _ => "meta.k8s.io/v1",
    }
}

/// What the router says where `Accept` names, but for parameters, no type that the route has: it knows no `application/*`.
pub fn check_route(headers: &HeaderMap, list: bool) -> Result<(), Status> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let named = |range: &str| {
        let name = range.split(';').next().unwrap_or("").trim();
        name == "*/*" || NAMES.iter().any(|(_, known)| *known == name)
    };
    if accept.is_empty() || accept.split(',').any(named) {
        return Ok(());
    }
    let streams = [Format::Json, Format::Protobuf].map(|f| format!("{};stream=watch", f.name()));
    let mut types: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
    if list {
        types.extend(streams.iter().map(String::as_str));
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", types.join(", "));
    Err(Status { details: serde_json::json!({}), ..Status::new(406, "NotAcceptable", message) })
}

/// Chooses the form of an answer; `protobuf` says whether whole objects can be given in it.
pub fn negotiate(headers: &HeaderMap, query: &Query, protobuf: bool) -> Result<Media, Status> {
    let ranges = ranges(headers);
    let pretty = if query.has("pretty") { query.flag("pretty") } else { is_browser(headers) };
    if ranges.is_empty() {
        return Ok(Media { format: Format::Json, shape: Shape::Object, pretty });
    }
    for range in &ranges {
        let Some((format, shape)) = range.format().zip(range.shape()) else { continue };
        let possible = match shape {
            Shape::Object => protobuf,
            Shape::Table => false,
            Shape::Partial => true,
        };
        if format == Format::Protobuf && !possible {
            continue;
        }
        return Ok(Media { format, shape, pretty: pretty || range.get("pretty") == Some("1") });
    }
    Err(not_acceptable())
}

/// 406 with the types that exist.
pub fn not_acceptable() -> Status {
    let names: Vec<_> = NAMES.iter().map(|(_, n)| *n).collect();
    let message = format!("only the following media types are accepted: {}", names.join(", "));
    Status::new(406, "NotAcceptable", message)
}

/// 406 of a watch, with the types that can be streamed.
pub fn not_acceptable_stream() -> Status {
    let streams = [Format::Json, Format::Protobuf].map(|f| format!("{};stream=watch", f.name()));
    let message = format!("only the following media types are accepted: {}", streams.join(", "));
    Status::new(406, "NotAcceptable", message)
}

/// 415 for a body of an unknown type.
pub fn unsupported() -> Status {
    let names: Vec<_> = NAMES.iter().map(|(_, n)| *n).collect();
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        names.join(", ")
    );
    Status::new(415, "UnsupportedMediaType", message)
}

/// An object in protobuf as JSON, for the audit log; `None` where its kind is not known.
pub fn protobuf_to_json(bytes: &[u8]) -> Option<serde_json::Value> {
    let envelope = schema::Envelope::open(bytes).ok()?;
    let version = api::GroupVersion::parse(&envelope.api_version)?;
    let name = schema::schema_name(&version.group, &version.version, &envelope.kind)?;
    envelope.object(name).ok()
}

/// Whether a client accepts `application/json;as=<kind>;g=<group>;v=<version>` before plain JSON.
pub fn wants(headers: &HeaderMap, kind: &str, group: &str, version: &str) -> bool {
    let found = ranges(headers).into_iter().find(|r| match r.get("as") {
        None => r.format().is_some(),
        Some(k) => k == kind && r.get("g") == Some(group) && r.get("v") == Some(version),
    });
    found.is_some_and(|r| r.get("as").is_some())
}

/// People reading with a browser or curl get indented JSON.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &str, protobuf: bool) -> Option<(Format, Shape)> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().expect("header"));
        }
        negotiate(&headers, &Query::default(), protobuf).ok().map(|m| (m.format, m.shape))
    }

    #[test]
    fn accept_is_negotiated() {
        let protobuf = "application/vnd.kubernetes.protobuf";
        let partial = format!("{protobuf};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
        let table = [
            ("", Some((Format::Json, Shape::Object))),
            ("*/*", Some((Format::Json, Shape::Object))),
            ("application/yaml", Some((Format::Yaml, Shape::Object))),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some((Format::Json, Shape::Table))),
            ("application/json;as=Odd;v=v1;g=meta.k8s.io,application/json", Some((Format::Json, Shape::Object))),
            ("application/json;q=0.5,application/yaml", Some((Format::Yaml, Shape::Object))),
            ("text/html", None),
            ("application/cbor", None),
            ("application/cbor,application/json", Some((Format::Json, Shape::Object))),
            (protobuf, Some((Format::Protobuf, Shape::Object))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Format::Protobuf, Shape::Object))),
            ("application/vnd.kubernetes.protobuf;q=0.4, application/json", Some((Format::Json, Shape::Object))),
            ("application/vnd.kubernetes.protobuf;stream=watch", Some((Format::Protobuf, Shape::Object))),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            (&partial, Some((Format::Protobuf, Shape::Partial))),
            ("application/json;g=meta.k8s.io;v=v1", None),
            ("application/json;as=PartialObjectMetadata;g=k8s.io;v=v1", None),
            ("application/json;stream=watch;as=Table;g=meta.k8s.io;v=v1", Some((Format::Json, Shape::Table))),
            ("application/json;stream=other", None),
            ("application/yaml;stream=watch", None),
        ];
        for (accept, want) in table {
            assert_eq!(accepted(accept, true), want, "{accept}");
        }
    }

    #[test]
    fn custom_resources_have_protobuf_for_metadata_only() {
        let protobuf = "application/vnd.kubernetes.protobuf";
        let partial = format!("{protobuf};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        assert_eq!(accepted(protobuf, false), None);
        assert_eq!(accepted(&format!("{protobuf},application/json"), false), Some((Format::Json, Shape::Object)));
        assert_eq!(accepted(&partial, false), Some((Format::Protobuf, Shape::Partial)));
    }
}
