//! Where a webhook is reached.

use crate::field::{Errors, Fields, Path};
use crate::names;
use serde_json::Value;

const FORM: &str = "; desired format: https://host[/path]";

/// Errors of a `clientConfig`.
pub fn client_config(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match (of.at("url").as_str(), of.has("service")) {
        (Some(url), false) => self::url(errors, url, &path.field("url")),
        (None, true) => service(errors, of.at("service"), &path.field("service")),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn url(errors: &mut Errors, url: &str, path: &Path<'_>) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or("") };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        errors.invalid(path, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errors.invalid(path, host, &format!("host must be specified{FORM}"));
    }
    for (part, text) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            errors.invalid(path, part, text);
        }
    }
}

fn service(errors: &mut Errors, service: &Value, path: &Path<'_>) {
    for field in ["name", "namespace"] {
        if service.text(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    let port = service.int("port").unwrap_or(0);
    if let Some(text) = names::port_number(port) {
        errors.invalid(&path.field("port"), port, &format!("port is not valid: {text}"));
    }
    let (text, path) = (service.text("path"), path.field("path"));
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        return errors.invalid(&path, text, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        errors.invalid(&path, text, "must start with a '/'");
    }
    // upstream drops the first character whatever it is
    let rest: String = text.chars().skip(1).collect();
    for (i, step) in rest.strip_suffix('/').unwrap_or(&rest).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, text, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for wrong in names::dns1123_subdomain(step, false) {
            errors.invalid(&path, text, &format!("segment[{i}]: {wrong}"));
        }
    }
}
