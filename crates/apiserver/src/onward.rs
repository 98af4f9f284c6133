//! What every request that is sent on has in common, to a kubelet, a pod, a service or another API server: the headers
//! it must lose, and the tunnel that an upgraded connection becomes.

use crate::body::{Body, empty};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderMap, UPGRADE};
use http::{HeaderName, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Headers that belong to one connection and are not sent on.
const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Marks an answer as another server's.
#[derive(Clone, Copy)]
pub struct SentOn;

/// The answer of another server as this one's.
pub fn answer(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.version = http::Version::default();
    parts.extensions.insert(SentOn);
    strip(&mut parts.headers, false);
    Response::from_parts(parts, body.map_err(std::io::Error::other).boxed_unsync())
}

/// Removes what belongs to one connection; the wish to upgrade stays where it is carried on.
fn strip(headers: &mut HeaderMap, upgrades: bool) {
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
    if upgrades {
        // An upgrade is sent on without a body: a length would make what follows on the connection its body.
        headers.remove(CONTENT_LENGTH);
    } else {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

/// A request's headers without what only its first receiver is to see: the connection's, and who asks, which has been
/// decided here.
pub fn headers(from: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut headers = from.clone();
    strip(&mut headers, upgrades);
    headers.remove(AUTHORIZATION);
    crate::authn::without_token(&mut headers);
    let impersonates = |name: &&HeaderName| name.as_str().starts_with("impersonate-");
    let impersonation: Vec<_> = headers.keys().filter(impersonates).cloned().collect();
    impersonation.into_iter().for_each(|name| drop(headers.remove(name)));
    headers
}

/// Connects both ends byte for byte, and answers that the protocol was switched.
pub fn tunnel(client: OnUpgrade, mut response: Response<Incoming>) -> Response<Body> {
    let backend = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    strip(&mut parts.headers, true);
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade failed"),
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "a tunnel ended");
        }
    });
    Response::from_parts(parts, empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_announce_no_body() {
        let names = ["upgrade", "connection", "content-length", "transfer-encoding", "accept"];
        let from: HeaderMap =
            names.into_iter().map(|n| (HeaderName::from_static(n), "1".parse().expect("value"))).collect();
        let check = |upgrades: bool, want: &[&str]| {
            let headers = headers(&from, upgrades);
            let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, want, "upgrades: {upgrades}");
        };
        check(true, &["accept", "connection", "upgrade"]);
        check(false, &["accept", "content-length"]);
    }
}
