//! Selectors, tokens and paths.

use super::*;

/// The longest address: what is longer, hyper refuses before the server sees it.
const URI: usize = 60 << 10;

fn query(parameter: &str, item: impl Fn(usize) -> String) -> Call {
    let text = repeat(URI / 3, item);
    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    call("GET", &format!("/api/v1/pods?{parameter}={encoded}"), JSON, "")
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case!("label selector: requirements", query("labelSelector", |i| format!("k{i}=v"))),
        case!(
            "label selector: values",
            query("labelSelector", |i| match i {
                0 => "k in (v".into(),
                _ => format!("v{i}"),
            })
        ),
        case!("label selector: open brackets", query("labelSelector", |_| "((((((((((((((((".into())),
        case!("field selector: requirements", query("fieldSelector", |i| format!("metadata.name=v{i}"))),
        case!("parameters", call("GET", &format!("/api/v1/pods?{}", "a&".repeat(URI / 2)), JSON, "")),
        case!("a long path", call("GET", &format!("/api/v1/{}", "a/".repeat(URI / 2)), JSON, "")),
        case!(
            "a long continue token",
            call("GET", &format!("/api/v1/pods?limit=1&continue={}", "eyJ2".repeat(URI / 4)), JSON, "")
        ),
    ]
}
