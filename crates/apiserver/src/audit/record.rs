//! What is known of a request for its audit events, collected on its way.

use super::policy::{Level, Verdict};
use crate::authn::UserInfo;
use api::Status;
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Longer ones are cut.
const MAX_AUDIT_ID: usize = 64;

/// The record of a request.
#[derive(Default)]
pub struct Record {
    /// `Audit-Id`, the client's or a new one.
    pub id: String,
    /// Path and query as sent.
    pub uri: String,
    /// Who the request came from, by way of which proxies.
    pub source_ips: Vec<String>,
    state: Mutex<State>,
}

/// What becomes known on the way.
#[derive(Clone, Default)]
pub struct State {
    /// What the policy says.
    pub verdict: Verdict,
    /// Who sent it, before impersonation.
    pub user: Option<Arc<UserInfo>>,
    /// Who it acts as.
    pub impersonated: Option<Arc<UserInfo>>,
    /// The body of the request and its media type, when it is to be written.
    pub body: Option<(Bytes, String)>,
    /// Status code, and the error if there was one.
    pub code: u16,
    /// See `code`.
    pub failure: Option<Status>,
    /// Whether the client left before there was an answer.
    pub left: bool,
    /// The body of the answer and its media type, when it is to be written.
    pub answer: Option<(Bytes, String)>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// Begins the record of a request.
    pub fn new(headers: &HeaderMap, uri: String, remote: Option<IpAddr>) -> Self {
        let given = headers.get("audit-id").and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty());
        let id = match given {
            Some(id) => id.chars().take(MAX_AUDIT_ID).collect(),
            None => uuid::Uuid::new_v4().to_string(),
        };
        Self { id, uri, source_ips: source_ips(headers, remote), state: Mutex::default() }
    }

    /// What the policy says.
    pub fn verdict(&self) -> Verdict {
        self.state.lock().verdict.clone()
    }

    /// Whether anything is written of it.
    pub fn is_audited(&self) -> bool {
        self.state.lock().verdict.level != Level::None
    }

    /// Whether the body of the request is to be kept.
    pub fn wants_body(&self) -> bool {
        self.state.lock().verdict.level >= Level::Request
    }

    /// Whether the body of the answer is to be kept.
    pub fn wants_answer(&self) -> bool {
        self.state.lock().verdict.level >= Level::RequestResponse
    }

    /// Adds to it.
    pub fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    /// Notes that there will be no answer any more; whether there was one.
    pub fn closed(&self) -> bool {
        let mut state = self.state.lock();
        let answered = state.code > 0;
        if !answered {
            (state.code, state.left) = (200, true);
        }
        answered
    }

    /// As it is now.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }
}

/// `X-Forwarded-For`, then `X-Real-Ip`, then the address of the connection, each unless the one before it is the same.
fn source_ips(headers: &HeaderMap, remote: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut ips: Vec<IpAddr> = text("x-forwarded-for").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    if let Ok(ip) = text("x-real-ip").trim().parse::<IpAddr>()
        && !ips.contains(&ip)
    {
        ips.push(ip);
    }
    if let Some(remote) = remote.map(|ip| ip.to_canonical())
        && ips.last() != Some(&remote)
    {
        ips.push(remote);
    }
    ips.iter().map(IpAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_listed_once() {
        let check = |pairs: &[(&'static str, &str)], want: &[&str]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().expect("header"));
            }
            assert_eq!(source_ips(&headers, Some("10.0.0.1".parse().expect("ip"))), want, "{pairs:?}");
        };
        check(&[], &["10.0.0.1"]);
        check(&[("x-forwarded-for", "1.2.3.4, junk, ::1")], &["1.2.3.4", "::1", "10.0.0.1"]);
        check(&[("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1")], &["10.0.0.1"]);
        check(&[("x-real-ip", "9.9.9.9")], &["9.9.9.9", "10.0.0.1"]);
    }

    #[test]
    fn ids_are_the_clients_or_new() {
        let mut headers = HeaderMap::new();
        assert_eq!(Record::new(&headers, String::new(), None).id.len(), 36);
        headers.insert("audit-id", "x".repeat(100).parse().expect("header"));
        assert_eq!(Record::new(&headers, String::new(), None).id, "x".repeat(64));
    }
}
