//! Requests sent on to the servers of aggregated APIs.

use super::remote::Remote;
use crate::authn::{UserInfo, front_proxy};
use crate::body::{Body, empty};
use crate::handlers::{Request, answer};
use crate::onward;
use crate::server::ApiServer;
use api::Status;
use http::header::{HOST, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::percent_decode_str;

const UNAVAILABLE: &str = "service unavailable\n";
const REDIRECTED: &str = "the backend attempted to redirect this request, which is not permitted\n";

/// Sends a request on, if another server answers for its group and version.
pub async fn handle(server: &ApiServer, request: &Request) -> Result<Option<Response<Body>>, Status> {
    // Decoded as for authorization: who is asked is decided by the same words.
    let path = percent_decode_str(&request.info.path).decode_utf8_lossy();
    let mut parts = path.split('/').skip(1);
    let (Some("apis"), Some(group), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let Some(service) = server.aggregator().remote(group, version) else { return Ok(None) };
    let Some(reference) = service.remote.as_ref().filter(|_| service.is_available()) else {
        return Ok(Some(answer::text(503, UNAVAILABLE)));
    };
    let remote = server.aggregator().client(server, reference);
    if let Some(why) = remote.error() {
        return Ok(Some(answer::text(500, format!("{why}\n"))));
    }
    if server.webhooks().resolver().resolve(&reference.namespace, &reference.name, reference.port).is_err() {
        return Ok(Some(answer::text(503, UNAVAILABLE)));
    }
    forward(&remote, request, &request.user).await.map(Some)
}

/// Sends a request on as a user's.
pub async fn forward(remote: &Remote, request: &Request, user: &UserInfo) -> Result<Response<Body>, Status> {
    let client = request.take_upgrade().filter(|_| request.headers.contains_key(UPGRADE));
    let body = if client.is_some() { empty() } else { request.take_body() };
    let uri = remote.url(&path_and_query(request));
    let outgoing = http::Request::builder().method(request.method.clone()).uri(uri).body(body);
    let mut outgoing = outgoing.map_err(|e| Status::bad_request(e.to_string()))?;
    *outgoing.headers_mut() = headers(&request.headers, user, client.is_some());
    let response = match remote.send(outgoing).await {
        Ok(response) => response,
        Err(why) => return Ok(answer::text(503, format!("error trying to reach service: {why}\n"))),
    };
    match (response.status(), client) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => Ok(onward::tunnel(client, response)),
        (StatusCode::SWITCHING_PROTOCOLS, None) => Ok(answer::text(503, "the backend switched protocols unasked\n")),
        (status, _) if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
            Ok(answer::text(502, REDIRECTED))
        }
        _ => Ok(onward::answer(response)),
    }
}

fn path_and_query(request: &Request) -> String {
    let pairs = request.query.pairs();
    if pairs.is_empty() {
        return request.info.path.clone();
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    format!("{}?{}", request.info.path, query.finish())
}

/// What is sent on: who asks is said in the headers of a front proxy, and in no other.
fn headers(from: &HeaderMap, user: &UserInfo, upgrades: bool) -> HeaderMap {
    let mut headers = onward::headers(from, upgrades);
    headers.remove(HOST);
    front_proxy::assert(user, &mut headers);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn credentials_stay_here() {
        let names = ["authorization", "impersonate-user", "x-remote-user", "x-remote-extra-a", "connection", "accept"];
        let from = names.into_iter().map(|n| (HeaderName::from_static(n), "v".parse().expect("value")));
        let headers = headers(&from.collect(), &UserInfo::new("ann", &[]), false);
        let mut left: Vec<_> = headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().expect("text"))).collect();
        left.sort();
        assert_eq!(left, ["accept=v", "x-remote-group=system:authenticated", "x-remote-user=ann"]);
    }
}
