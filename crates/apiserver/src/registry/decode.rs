//! Decoding of request bodies: media type, syntax, type, group version kind, field validation.

use super::{Resource, yaml};
use crate::handlers::Request;
use crate::media::{self, Format};
use api::{Cause, Gvk, Object, Status};
use serde_json::Value;

/// What is done about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Nothing.
    Ignore,
    /// A warning for each.
    Warn,
    /// The request fails.
    Strict,
}

/// Gives a quantity's canonical form.
pub fn canonical_quantity(text: &str) -> Option<String> {
    api::quantity::Quantity::parse(text).ok().map(|q| q.to_string())
}

/// Where Go's scheme is named in errors.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";
/// That of custom resource definitions.
const EXTENSIONS_SCHEME: &str = "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55";

/// A kind that a body may be of.
pub struct Expected<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub gvk: &'a Gvk,
    /// Other versions of it, which do not differ.
    pub also: &'a [&'a str],
}

impl<'a> Expected<'a> {
    /// A kind of one version.
    pub fn new(schema: &'a str, gvk: &'a Gvk) -> Self {
        Self { schema, gvk, also: &[] }
    }
}

/// Reads and decodes the body of a create or update.
pub async fn body(request: &Request, expected: &Expected<'_>) -> Result<Object, Status> {
    let format = Format::of_content_type(&request.headers).ok_or_else(media::unsupported)?;
    let bytes = request.read_body().await?;
    let kind = &expected.gvk.kind;
    let cannot = |version: &str, found: &str, why: &str| {
        Status::bad_request(format!("{found} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    let failed = |found: &str, why: &str| cannot(&expected.gvk.version, found, why);
    // What is of another kind is named by its own version.
    let other = |(api_version, found): &(String, String), why: &str| match api::GroupVersion::parse(api_version) {
        Some(own) if !api_version.is_empty() => cannot(&own.version, if found.is_empty() { kind } else { found }, why),
        _ => failed(found, why),
    };
    let decoded = match format {
        Format::Json => {
            let header = peek(&bytes).map_err(|why| unrecognized(kind, &why, &bytes))?;
            check_kind(&header, expected).map_err(|why| other(&header, &why))?;
            schema::decode_slice(expected.schema, &bytes, canonical_quantity)
        }
        Format::Yaml => {
            let (value, twice) = of_yaml(&bytes, kind)?;
            let json = serde_json::to_vec(&value).map_err(Status::internal)?;
            let header = peek(&json).map_err(|why| unrecognized(kind, &why, &bytes))?;
            check_kind(&header, expected).map_err(|why| other(&header, &why))?;
            let decoded = schema::decode_slice(expected.schema, &json, canonical_quantity);
            decoded.map(|mut decoded| {
                decoded.strict.splice(0..0, twice);
                decoded
            })
        }
        Format::Protobuf => {
            let envelope = schema::Envelope::open(&bytes).map_err(|why| unrecognized(kind, &why, &bytes))?;
            let header = (envelope.api_version.clone(), envelope.kind.clone());
            check_kind(&header, expected).map_err(|why| other(&header, &why))?;
            envelope.json().map_or(Ok(()), crate::body::check_weight)?;
            protobuf(expected.schema, &envelope)
        }
    };
    let decoded = decoded.map_err(|why| match why.strip_prefix("syntax: ") {
        Some(why) => Status::bad_request(format!("couldn't get version/kind; json parse error: {why}")),
        None => failed(kind, &why),
    })?;
    validate_fields(request, decoded.strict, &|list| failed(kind, &format!("strict decoding error: {list}")))?;
    Ok(decoded.object)
}

/// The object of an envelope, its quantities in canonical form; protobuf has no unknown or duplicate fields.
fn protobuf(schema: &str, envelope: &schema::Envelope<'_>) -> Result<schema::Decoded, String> {
    let mut object = envelope.object(schema)?;
    schema::decode(schema, &mut object, canonical_quantity)?;
    Ok(schema::Decoded { object, strict: Vec::new() })
}

/// 400 for a body whose kind cannot even be found out; it ends with the body's first bytes.
pub fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    const SHOWN: usize = 30;
    let start = &body[..body.len().min(SHOWN)];
    let mut shown = match start {
        [] => "<empty>".to_owned(),
        [b'{', ..] => String::from_utf8_lossy(start).into_owned(),
        _ => start.iter().map(|b| format!("{b:02x}")).collect(),
    };
    if body.len() > SHOWN {
        shown.push_str(" ...");
    }
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})"))
}

/// Warns of, or fails for, fields that are unknown or given twice.
pub fn validate_fields(request: &Request, found: Vec<String>, failed: &dyn Fn(&str) -> Status) -> Result<(), Status> {
    if found.is_empty() {
        return Ok(());
    }
    match request.field_validation()? {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => found.iter().flat_map(|text| warnings_of(text)).for_each(|text| request.warn(text)),
        FieldValidation::Strict => return Err(failed(&found.join(", "))),
    }
    Ok(())
}

/// The warnings that a strict error makes: of YAML one for each line.
fn warnings_of(error: &str) -> impl Iterator<Item = &str> {
    let lines = error.strip_prefix("yaml: unmarshal errors:");
    let (whole, lines) = (lines.is_none().then_some(error), lines.unwrap_or_default());
    whole.into_iter().chain(lines.lines().map(str::trim).filter(|line| !line.is_empty()))
}

/// `apiVersion` and `kind` of a JSON document, without building it; or why they cannot be found.
pub fn peek(json: &[u8]) -> Result<(String, String), String> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Header {
        api_version: Option<String>,
        kind: Option<String>,
    }
    // A list would be read as the struct's fields in their order.
    let is_list = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let (api_version, kind) = match serde_json::from_slice::<Option<Header>>(json) {
        Ok(header) if !is_list => {
            let Header { api_version, kind } = header.unwrap_or_default();
            (api_version.unwrap_or_default(), kind.unwrap_or_default())
        }
        _ => no_header(json).map_err(|why| format!("couldn't get version/kind; json parse error: {why}"))?,
    };
    if api_version.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {api_version}"));
    }
    Ok((api_version, kind))
}

/// What Go says where it cannot read the kind of a document; a kind that is given twice can be read.
fn no_header(json: &[u8]) -> Result<(String, String), String> {
    const HEADER: &str =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let go = |value: &Value| match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Object(_) => "object",
        Value::Number(_) | Value::Null => "number",
    };
    let Ok(document) = serde_json::from_slice::<Value>(json) else {
        // The decoder of `schema` words syntax errors as Go does.
        let why = schema::decode_slice("io.k8s.apimachinery.pkg.apis.meta.v1.Status", json, canonical_quantity);
        let why = why.err().unwrap_or_default();
        return Err(why.strip_prefix("syntax: ").unwrap_or(&why).to_owned());
    };
    let field = ["apiVersion", "kind"].into_iter().find_map(|field| {
        document.get(field).filter(|value| !value.is_string() && !value.is_null()).map(|value| (field, value))
    });
    match field {
        Some((field, value)) => {
            Err(format!("json: cannot unmarshal {} into Go struct field .{field} of type string", go(value)))
        }
        None if document.is_object() => {
            let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            Ok((text("apiVersion"), text("kind")))
        }
        None => Err(format!("json: cannot unmarshal {} into Go value of type {HEADER}", go(&document))),
    }
}

/// An absent `apiVersion` or `kind` is taken to be what the path says.
fn check_kind((api_version, kind): &(String, String), expected: &Expected<'_>) -> Result<(), String> {
    let want = expected.gvk;
    let known = *api_version == want.api_version() || expected.also.contains(&api_version.as_str());
    let version_ok = api_version.is_empty() || known;
    let kind_ok = kind.is_empty() || *kind == want.kind;
    if version_ok && kind_ok {
        return Ok(());
    }
    let found = api::GroupVersion::parse(api_version).filter(|_| !api_version.is_empty());
    let (group, version) = found.map_or((want.group.clone(), want.version.clone()), |g| (g.group, g.version));
    let kind = if kind.is_empty() { &want.kind } else { kind };
    // Lists of anything are known to the core group alone.
    let listed = kind == "List" && group.is_empty() && version == "v1";
    if schema::schema_name(&group, &version, kind).is_some() || listed {
        return Err(if internal_package(&group) == internal_package(&want.group) && *kind == want.kind {
            let found = Gvk::new(&group, &version, kind).api_version();
            format!(
                "the API version in the data ({found}) does not match the expected API version ({})",
                want.api_version()
            )
        } else {
            unknown_conversion(&version, kind, want)
        });
    }
    Err(no_kind(&group, &version, kind, want))
}

/// What Go's scheme says of an object of one kind that is to become one of another.
pub fn unknown_conversion(version: &str, kind: &str, want: &Gvk) -> String {
    format!("converting ({version}.{kind}) to ({}.{}): unknown conversion", internal_package(&want.group), want.kind)
}

/// The Go package of a group's internal types.
pub fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

/// What a scheme says of a kind that it does not know.
pub fn no_kind(group: &str, version: &str, kind: &str, want: &Gvk) -> String {
    let version = api::GroupVersion::new(group, version);
    let scheme = if want.group == "apiextensions.k8s.io" { EXTENSIONS_SCHEME } else { SCHEME };
    format!("no kind {kind} is registered for version \"{version}\" in scheme {scheme:?}", kind = api::quoted(kind))
}

/// Parses YAML into a JSON value.
pub fn of_yaml(bytes: &[u8], kind: &str) -> Result<(Value, Option<String>), Status> {
    yaml::parse_body(bytes).map_err(|why| unrecognized(kind, &why, bytes))
}

/// The parts of an object that the request decides: its namespace must be that of the path.
pub fn check_namespace(resource: &Resource, object: &mut Object, namespace: &str) -> Result<(), Status> {
    if !resource.namespaced {
        if !api::meta::namespace(object).is_empty() {
            api::meta::set(object, "namespace", Value::Null);
        }
        return Ok(());
    }
    match api::meta::namespace(object) {
        "" => api::meta::set(object, "namespace", namespace),
        found if found == namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// 422 for an invalid options object, `CreateOptions.meta.k8s.io "" is invalid: ...`.
pub fn invalid_options(kind: &str, causes: &[Cause]) -> Status {
    Status::invalid("meta.k8s.io", kind, "", causes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_checked() {
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let expected = Expected { schema: "io.k8s.api.core.v1.ConfigMap", gvk: &gvk, also: &["v1old"] };
        let check = |api_version: &str, kind: &str| check_kind(&(api_version.into(), kind.into()), &expected);
        assert_eq!(check("v1", "ConfigMap"), Ok(()));
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check("v1old", "ConfigMap"), Ok(()));
        let want = r#"no kind "Wrong" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#;
        assert_eq!(check("v1", "Wrong"), Err(want.into()));
        assert!(check("apps/v1", "Deployment").is_err());
    }

    #[test]
    fn headers_are_peeked_at() {
        let check = |json: &str, want: Result<(&str, &str), &str>| match (peek(json.as_bytes()), want) {
            (Ok((version, kind)), Ok(want)) => assert_eq!((version.as_str(), kind.as_str()), want, "{json}"),
            (Err(why), Err(want)) => assert!(why.contains(want), "{json}: {why}"),
            (got, want) => panic!("{json}: {got:?}, not {want:?}"),
        };
        check(r#"{"apiVersion": "v1", "kind": "Pod"}"#, Ok(("v1", "Pod")));
        check(r#"{"apiVersion": "v1", "apiVersion": "v1", "kind": "Pod"}"#, Ok(("v1", "Pod")));
        check("null", Ok(("", "")));
        check("[]", Err("cannot unmarshal array into Go value of type struct"));
        check(r#"["v1", "Pod"]"#, Err("cannot unmarshal array into Go value of type struct"));
        check(r#"{"kind": 1}"#, Err("cannot unmarshal number into Go struct field .kind of type string"));
        check(r#"{"apiVersion": "a/b/c"}"#, Err("unexpected GroupVersion string: a/b/c"));
    }

    #[test]
    fn yaml_is_read() {
        assert_eq!(of_yaml(b"a: 1\nb: [x]", "K").map(|(value, _)| value), Ok(json!({"a": 1, "b": ["x"]})));
        assert_eq!(of_yaml(b" ", "K").map(|(value, _)| value), Ok(json!({})));
        assert_eq!(of_yaml(b"a: [", "K").map_err(|e| e.code), Err(400));
    }
}
