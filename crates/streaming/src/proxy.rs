//! A session that another server carries: the request goes there, and after its 101 the bytes both ways.

use super::{Body, text};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(30);

/// Hands an upgrade request to the server of a URL (`http://127.0.0.1:41234/exec/…`), as a runtime gave it.
pub async fn forward(request: Request<Incoming>, url: &str) -> Response<Body> {
    match tokio::time::timeout(WITHIN, connect(request, url)).await {
        Ok(Ok(response)) => response,
        Ok(Err(why)) => text(StatusCode::BAD_GATEWAY, format!("error dialing backend: {why}")),
        Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "error dialing backend: timed out"),
    }
}

async fn connect(mut request: Request<Incoming>, url: &str) -> Result<Response<Body>, String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?.clone();
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url} is not plain HTTP, which runtimes serve streams by on the node itself"));
    }
    let port = authority.port_u16().unwrap_or(80);
    let stream =
        TcpStream::connect((authority.host().trim_matches(['[', ']']), port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = request.method().clone();
    // A runtime keeps what was asked for under a token of the path; only ports of old clients stand in the query.
    *onward.uri_mut() = path(&uri, request.uri().query()).parse().map_err(|e| format!("{url}: {e}"))?;
    for (name, value) in request.headers().iter().filter(|(name, _)| kept(name)) {
        onward.headers_mut().append(name, value.clone());
    }
    onward.headers_mut().insert(header::HOST, authority.as_str().parse().map_err(|_| format!("{url}: bad host"))?);
    let mut answer = sender.send_request(onward).await.map_err(|e| e.to_string())?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        return Ok(text(status, body));
    }
    let (near, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        if let Ok((near, far)) = tokio::try_join!(near, far) {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
        }
    });
    let mut response = Response::new(Empty::<Bytes>::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

fn path(uri: &http::Uri, query: Option<&str>) -> String {
    match (uri.query(), query) {
        (Some(query), _) | (None, Some(query)) => format!("{}?{query}", uri.path()),
        (None, None) => uri.path().to_owned(),
    }
}

/// Credentials were for the kubelet and go no further.
fn kept(name: &header::HeaderName) -> bool {
    ![header::HOST, header::AUTHORIZATION, header::COOKIE, header::CONTENT_LENGTH].contains(name)
}
