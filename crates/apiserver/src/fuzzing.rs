//! What the fuzz targets in `/fuzz` call of this crate: its private parsers of outside bytes.

use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::{deadline, media, store};
use http::{HeaderMap, Method};

/// Reads a request's path and query, as the chain does before anything else is known of it.
pub fn request(path: &str, query: &str) {
    let query = Query::parse(Some(query));
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let info = RequestInfo::new(&method, path, &query);
        let _ = (info.resource_with_subresource(), info.is_read(), deadline::is_long_running(&info));
    }
    let _ = (query.integer("limit"), query.flag("watch"), deadline::of(&query, deadline::DEFAULT));
}

/// Negotiates the form of an answer.
pub fn accept(text: &str) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = text.parse() {
        headers.insert(http::header::ACCEPT, value);
        let _ = media::negotiate(&headers, &Query::default(), true);
        let _ = media::wants(&headers, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2");
    }
}

/// Reads a continue token; one that is understood is written as it was read.
pub fn continue_token(text: &str) {
    store::read_continue_token(text);
}

/// Whether a body is refused for what it would take.
pub fn is_too_heavy(body: &[u8]) -> bool {
    crate::body::check_weight(body).is_err()
}
