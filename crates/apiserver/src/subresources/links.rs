//! Answers of proxied pods, services and nodes: what they link to on their own host is to be found through the proxy.
//!
//! Redirects and the links of HTML pages that name a path of the same host get the proxy's path put before theirs.
//! Pages longer than [`LIMIT`] and those in an encoding other than gzip and deflate go on as they are.

use super::pages;
use crate::body::{Body, full};
use bytes::Bytes;
use flate2::read::{DeflateDecoder, GzDecoder};
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, LOCATION};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use std::io::{self, Read};

/// The longest page whose links are rewritten.
const LIMIT: usize = 4 << 20;

/// Where a page came from, and where it is to be found.
pub struct Source {
    /// The path that is the root of the host behind the proxy.
    pub prefix: String,
    /// Address and port of that host.
    pub host: String,
    /// The host that the request names.
    pub asked: String,
}

impl Source {
    /// The link through the proxy, where it names a path of the same host; `None` leaves it as it is.
    pub fn rewrite(&self, link: &str) -> Option<String> {
        let (base, rest) = match link.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            Some((scheme, rest)) => (Some(format!("{scheme}://")), rest),
            None => match link.strip_prefix("//") {
                Some(rest) => (Some("//".into()), rest),
                None => (None, link),
            },
        };
        let (host, path) = match base {
            Some(_) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        if !path.starts_with('/') || !["", &self.host, &self.asked].contains(&host) {
            return None;
        }
        // A link that names the host that was asked keeps it; the host behind the proxy is nobody else's business.
        let base =
            base.filter(|_| !host.is_empty() && host == self.asked).map_or(String::new(), |b| format!("{b}{host}"));
        let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
        let below = if path.starts_with(&self.prefix) { path.to_owned() } else { join(&self.prefix, path) };
        Some(format!("{base}{below}{query}"))
    }

    /// The answer with its links rewritten.
    pub async fn answer(&self, response: Response<Body>) -> io::Result<Response<Body>> {
        let (mut parts, body) = response.into_parts();
        if let Some(location) = parts.headers.get(LOCATION) {
            let rewritten = location.to_str().ok().and_then(|l| self.rewrite(l));
            if let Some(value) = rewritten.and_then(|l| HeaderValue::try_from(l).ok()) {
                parts.headers.insert(LOCATION, value);
            }
            return Ok(Response::from_parts(parts, body));
        }
        if !is_html(&parts.headers) {
            return Ok(Response::from_parts(parts, body));
        }
        let page = match read(body).await? {
            Ok(page) => page,
            Err(longer) => return Ok(Response::from_parts(parts, longer)),
        };
        let Some(text) = decode(&parts.headers, &page) else { return Ok(Response::from_parts(parts, full(page))) };
        [CONTENT_ENCODING, CONTENT_LENGTH, ETAG].iter().for_each(|name| drop(parts.headers.remove(name)));
        Ok(Response::from_parts(parts, full(pages::rewrite(&text, |link| self.rewrite(link)))))
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim() == "text/html"
}

/// A path below another, without `.`, `..` and doubled slashes.
pub fn join(prefix: &str, path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in prefix.split('/').chain(path.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

/// The whole body, or, where it is longer than the limit, a body that goes on from its beginning.
async fn read(mut body: Body) -> io::Result<Result<Bytes, Body>> {
    let mut page = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        page.extend_from_slice(&data);
        if page.len() > LIMIT {
            let begun = futures::stream::once(async { Ok(http_body::Frame::data(Bytes::from(page))) });
            return Ok(Err(StreamBody::new(begun.chain(BodyStream::new(body))).boxed_unsync()));
        }
    }
    Ok(Ok(page.into()))
}

/// The text of a page; none for an encoding that is not understood and for too much of it.
fn decode(headers: &HeaderMap, page: &[u8]) -> Option<Vec<u8>> {
    let reader: Box<dyn Read + '_> = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"") => return Some(page.to_vec()),
        Some(b"gzip") => Box::new(GzDecoder::new(page)),
        Some(b"deflate") => Box::new(DeflateDecoder::new(page)),
        Some(_) => return None,
    };
    let mut text = Vec::new();
    let read = reader.take(LIMIT as u64 + 1).read_to_end(&mut text).ok()?;
    (read <= LIMIT).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn source() -> Source {
        Source { prefix: "/p/proxy".into(), host: "10.0.0.1:80".into(), asked: "api:6443".into() }
    }

    fn check(link: &str, expect: Option<&str>) {
        assert_eq!(source().rewrite(link).as_deref(), expect, "{link}");
    }

    #[test]
    fn links_go_through_the_proxy() {
        check("/a?b#c", Some("/p/proxy/a?b#c"));
        check("/a/../b/", Some("/p/proxy/b/"));
        check("/p/proxy/a", Some("/p/proxy/a"));
        check("http://10.0.0.1:80/a", Some("/p/proxy/a"));
        check("https://api:6443/a", Some("https://api:6443/p/proxy/a"));
        check("//10.0.0.1:80/a", Some("/p/proxy/a"));
        check("https://elsewhere/a", None);
        check("//elsewhere/a", None);
        check("a/b", None);
        check("mailto:a@b", None);
        check("#c", None);
        check("", None);
    }

    async fn answered(headers: &[(&str, &str)], body: Vec<u8>) -> (HeaderMap, Bytes) {
        let mut response = Response::new(full(body));
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("name");
            response.headers_mut().insert(name, value.parse().expect("value"));
        }
        let (parts, body) = source().answer(response).await.expect("answer").into_parts();
        (parts.headers, body.collect().await.expect("body").to_bytes())
    }

    #[tokio::test]
    async fn pages_and_redirects_are_rewritten() {
        let page = b"<a href=\"/x\">".to_vec();
        let html = ("content-type", "text/html; charset=utf-8");
        assert_eq!(answered(&[html], page.clone()).await.1, "<a href=\"/p/proxy/x\">");
        assert_eq!(answered(&[("content-type", "text/plain")], page.clone()).await.1, page);
        assert_eq!(answered(&[html, ("content-encoding", "br")], page.clone()).await.1, page);
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(&page).expect("write");
        let (headers, text) = answered(&[html, ("content-encoding", "gzip")], zipped.finish().expect("finish")).await;
        assert_eq!((text.as_ref(), headers.get(CONTENT_ENCODING)), (&b"<a href=\"/p/proxy/x\">"[..], None));
        let (headers, text) = answered(&[html, ("location", "/y")], page.clone()).await;
        assert_eq!((headers[LOCATION].as_bytes(), text.as_ref()), (&b"/p/proxy/y"[..], &page[..]));
    }

    #[tokio::test]
    async fn long_pages_go_on_whole() {
        let page = vec![b'<'; LIMIT + 1];
        assert_eq!(answered(&[("content-type", "text/html")], page.clone()).await.1, page);
    }
}
