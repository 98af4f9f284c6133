//! Continue tokens, and the errors of resource versions that are gone or yet to come.

use api::Status;
use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;

const VERSION: &str = "meta.k8s.io/v1";
/// As Go decodes: bits after the last byte do not matter.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v", default)]
    version: String,
    #[serde(rename = "rv", default)]
    revision: i64,
    #[serde(rename = "start", default)]
    start: String,
}

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    /// First key of the next page, below the list's prefix.
    pub start: String,
    /// Revision of the first page; `None`: the newest, for a list that may be inconsistent.
    pub revision: Option<u64>,
}

impl Continuation {
    /// Writes a token.
    pub fn encode(&self) -> String {
        let revision = self.revision.map_or(-1, |r| i64::try_from(r).unwrap_or(i64::MAX));
        let token = Token { version: VERSION.into(), revision, start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_string(&token).unwrap_or_default())
    }

    /// Reads a token.
    pub fn decode(text: &str) -> Result<Self, Status> {
        Self::parse(text)
            .map_err(|why| Status::bad_request(format!("invalid continue token: continue key is not valid{why}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = LENIENT.decode(text).map_err(|e| match e {
            base64::DecodeError::InvalidByte(at, _) => format!(": illegal base64 data at input byte {at}"),
            _ => format!(": illegal base64 data at input byte {}", text.len()),
        })?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|e| format!(": {}", unreadable(&bytes, &e)))?;
        if token.version != VERSION {
            return Err(format!(": server does not recognize this encoded version {}", token.version));
        }
        let revision = match token.revision {
            0 => return Err(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()),
            r => u64::try_from(r).ok(),
        };
        if token.start.is_empty() {
            return Err(": encoded start key empty (version meta.k8s.io/v1)".into());
        }
        let start = token.start.strip_prefix('/').unwrap_or(&token.start);
        if start.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(format!(": {}", token.start));
        }
        Ok(Self { start: start.to_owned(), revision })
    }
}

/// Whether a list can go on from a token.
pub fn check_continuation(token: &str) -> Result<(), Status> {
    Continuation::decode(token).map(drop)
}

/// What Go says of text that is no token.
fn unreadable(bytes: &[u8], error: &serde_json::Error) -> String {
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(first) if !b"{[\"tfn-0123456789".contains(first) => {
            let shown = match first {
                b'\'' => "'\\''".to_owned(),
                b if b.is_ascii_graphic() || (*b >= 0xa1 && *b != 0xad) => format!("'{}'", char::from(*b)),
                b if *b < 0x80 => format!("'\\x{b:02x}'"),
                b => format!("'\\u{:04x}'", *b),
            };
            format!("invalid character {shown} looking for beginning of value")
        }
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        _ => error.to_string(),
    }
}

/// 410 for a page whose revision has been compacted, with a token to go on without consistency.
pub(super) fn continue_expired(start: &str) -> Status {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
        list without the continue parameter, or use the continue token in this response to retrieve the remainder of \
        the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
        modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    let continue_token = Continuation { start: start.to_owned(), revision: None }.encode();
    Status { continue_token, ..Status::expired(message) }
}

/// 410 for a list at a revision that has been compacted.
pub(super) fn list_expired() -> Status {
    Status::expired("The resourceVersion for the provided list is too old.")
}

/// 410 for a watch that begins before what is remembered.
pub(super) fn watch_expired(requested: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {requested} ({oldest})"))
}

/// As an error of a page at a revision that has not happened: the store does not know when it will.
pub(super) fn without_retry(mut status: Status) -> Status {
    if let Some(details) = status.details.as_object_mut() {
        details.remove("retryAfterSeconds");
    }
    status
}

/// 504 for a revision that has not happened.
pub(super) fn too_large(requested: u64, current: u64) -> Status {
    let details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    Status { details, ..Status::timeout(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_kubernetes() {
        let token = Continuation { start: "a/b\0".into(), revision: Some(5) };
        let text = token.encode();
        assert_eq!(
            URL_SAFE_NO_PAD.decode(&text).ok().as_deref(),
            Some(&br#"{"v":"meta.k8s.io/v1","rv":5,"start":"a/b\u0000"}"#[..])
        );
        assert_eq!(Continuation::decode(&text), Ok(token));
        let upstream = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"x\u0000"}"#);
        assert_eq!(Continuation::decode(&upstream), Ok(Continuation { start: "x\0".into(), revision: None }));
    }

    #[test]
    fn bad_tokens_say_why() {
        let check = |text: String, want: &str| {
            let error = Continuation::decode(&text).expect_err(want);
            assert_eq!(
                (error.code, error.message),
                (400, format!("invalid continue token: continue key is not valid{want}"))
            );
        };
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        check("a*b".into(), ": illegal base64 data at input byte 1");
        check(encode(r#"{"v":"v0","rv":1,"start":"a"}"#), ": server does not recognize this encoded version v0");
        check(
            encode(r#"{"v":"meta.k8s.io/v1","start":"a"}"#),
            ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        );
        check(encode(r#"{"v":"meta.k8s.io/v1","rv":1}"#), ": encoded start key empty (version meta.k8s.io/v1)");
        for start in ["../a", "a//b", "a/./b", "a/"] {
            check(encode(&format!(r#"{{"v":"meta.k8s.io/v1","rv":1,"start":"{start}"}}"#)), &format!(": {start}"));
        }
    }
}
