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
    if let Some(why) = unparsable(url) {
        return errors.required(path, &format!("url must be a valid URL: parse {}: {why}{FORM}", api::quoted(url)));
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = scheme_of(rest).map_or(("", rest), |at| (&rest[..at], &rest[at + 1..]));
    let scheme = scheme.to_lowercase();
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or(""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        errors.invalid(path, scheme.as_str(), &format!("'https' is the only allowed URL scheme{FORM}"));
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

/// Where the scheme of a URL ends.
fn scheme_of(url: &str) -> Option<usize> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let at = url.find(':')?;
    (url[..at].chars().all(plain) && url.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(at)
}

/// Why Go's parser takes a text for no URL.
fn unparsable(url: &str) -> Option<String> {
    if url.chars().any(|c| c < ' ' || c == '\u{7f}') {
        return Some("net/url: invalid control character in URL".into());
    }
    let rest = url.split_once('#').map_or(url, |(rest, _)| rest);
    let scheme = scheme_of(rest);
    if rest.starts_with(':') {
        return Some("missing protocol scheme".into());
    }
    let after = scheme.map_or(rest, |at| &rest[at + 1..]);
    let after = after.split_once('?').map_or(after, |(after, _)| after);
    let first = after.split('/').next().unwrap_or("");
    if !after.starts_with('/') {
        if scheme.is_some() {
            return None;
        }
        if first.contains(':') {
            return Some("first path segment in URL cannot contain colon".into());
        }
    }
    let at = (0..after.len()).filter(|at| after.as_bytes()[*at] == b'%');
    let wrong =
        |at: &usize| !after.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let at = at.into_iter().find(wrong)?;
    let shown: String = after[at..].chars().take(3).collect();
    Some(format!("invalid URL escape {}", api::quoted(&shown)))
}

fn service(errors: &mut Errors, service: &Value, path: &Path<'_>) {
    // Upstream mixes the two up.
    for (field, given) in [("name", "namespace"), ("namespace", "name")] {
        if service.text(given).is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_as_go_does() {
        let check = |url: &str, want: Option<&str>| assert_eq!(unparsable(url).as_deref(), want, "{url}");
        check("https://a.b/c?d#e", None);
        check("10%", Some("invalid URL escape \"%\""));
        check("https://a/%zz", Some("invalid URL escape \"%zz\""));
        check("2020-01-01T00:00:00Z", Some("first path segment in URL cannot contain colon"));
        check(":x", Some("missing protocol scheme"));
        check("a\n", Some("net/url: invalid control character in URL"));
    }
}
