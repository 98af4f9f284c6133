//! The only way out: HTTP/1.1, with TLS where the URL says so, a connection a request.
//!
//! Redirects are followed for the first request alone, as git does, to HTTP(S) only and never from HTTPS back to HTTP.
//! All that is received counts against one budget.

mod exchange;

use crate::{Error, Result};
use bytes::Bytes;
use exchange::{Exchange, Part, RequestBody};
use gix::error::ErrorExt;
use gix_transport::client::blocking_io::http as transport;
use http::{HeaderName, HeaderValue, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longest wait for a connection, for an answer, and between two parts of a body.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
/// What every first URL of a clone ends in.
const ADVERTISEMENT: &str = "/info/refs?service=git-upload-pack";

/// The client of one clone.
pub struct Client {
    wire: Rc<Wire>,
    /// Where the server really is, once it has said so.
    base: Option<String>,
}

/// What all requests share.
struct Wire {
    runtime: tokio::runtime::Runtime,
    tls: Arc<ClientConfig>,
    /// Bytes that may still come.
    budget: RefCell<u64>,
}

type Request = http::Request<Full<Bytes>>;
type Response = http::Response<Incoming>;

impl Client {
    /// Makes a client that trusts a file of certificates and takes at most `budget` bytes.
    pub fn new(certificates: &Path, budget: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::Invalid(format!("start: {e}")))?;
        let wire = Wire { runtime, tls: Arc::new(tls(certificates)?), budget: RefCell::new(budget) };
        Ok(Self { wire: Rc::new(wire), base: None })
    }

    /// Asks, and follows the server where it leads.
    fn ask(&mut self, url: &str, headers: &[String]) -> io::Result<Response> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let request = request(&url, headers)?.method("GET").body(Full::default()).map_err(io::Error::other)?;
            let response = self.wire.runtime.block_on(self.wire.send(request))?;
            if !response.status().is_redirection() {
                self.base = url.strip_suffix(ADVERTISEMENT).map(str::to_owned);
                return checked(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            url = redirect(&url, location.ok_or_else(|| io::Error::other("a redirect without a location"))?)?;
        }
        Err(io::Error::other(format!("more than {MAX_REDIRECTS} redirects")))
    }
}

impl transport::Http for Client {
    type Headers = Part;
    type ResponseBody = Part;
    type PostBody = RequestBody;

    fn get(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<transport::GetResponse<Part, Part>> {
        let headers: Vec<String> = headers.into_iter().map(|h| h.as_ref().to_owned()).collect();
        let response = self.ask(url, &headers).map_err(ErrorExt::raise)?;
        let exchange = Exchange::answered(self.wire.clone(), response);
        Ok(transport::GetResponse { headers: Part::headers(&exchange), body: Part::body(&exchange) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: transport::PostBodyDataKind,
    ) -> gix::Result<transport::PostResponse<Part, Part, RequestBody>> {
        let headers: Vec<String> = headers.into_iter().map(|h| h.as_ref().to_owned()).collect();
        let builder = request(url, &headers).map_err(ErrorExt::raise)?.method("POST");
        let exchange = Exchange::asking(self.wire.clone(), builder);
        Ok(transport::PostResponse {
            post_body: RequestBody::new(&exchange),
            headers: Part::headers(&exchange),
            body: Part::body(&exchange),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.base.clone()
    }
}

impl Wire {
    async fn send(&self, request: Request) -> io::Result<Response> {
        let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = request.uri().scheme_str() == Some("https");
        let port = request.uri().port_u16().unwrap_or(if secure { 443 } else { 80 });
        let request = in_origin_form(request)?;
        let sending = async {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            if !secure {
                return exchange_on(stream, request).await;
            }
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
            exchange_on(connector.connect(name, stream).await?, request).await
        };
        let patience = || io::Error::new(io::ErrorKind::TimedOut, "the server does not answer");
        let done = tokio::time::timeout(PATIENCE, sending).await.map_err(|_| patience())?;
        done.map_err(|e| io::Error::new(e.kind(), format!("{host}:{port}: {e}")))
    }

    /// Takes bytes off the budget.
    fn spend(&self, bytes: usize) -> io::Result<()> {
        let mut budget = self.budget.borrow_mut();
        let left = budget.checked_sub(bytes as u64);
        *budget = left.ok_or_else(|| io::Error::other("the repository is too large: the server sends too much"))?;
        Ok(())
    }
}

async fn exchange_on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, request: Request) -> io::Result<Response> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Lives as long as the response; only runs while somebody reads.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// HTTP/1.1 wants the path in the first line and the host in a header.
fn in_origin_form(mut request: Request) -> io::Result<Request> {
    let authority = request.uri().authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
    let host = HeaderValue::from_str(&authority).map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(io::Error::other)?;
    Ok(request)
}

fn request(url: &str, headers: &[String]) -> io::Result<http::request::Builder> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let mut builder = http::Request::builder().uri(uri);
    for line in headers {
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other("a header without a colon"))?;
        let name: HeaderName = name.trim().parse().map_err(io::Error::other)?;
        builder = builder.header(name, HeaderValue::from_str(value.trim()).map_err(io::Error::other)?);
    }
    Ok(builder)
}

fn checked(response: Response) -> io::Result<Response> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(io::Error::other(format!("the server answers {status}"))),
    }
}

/// The URL a server leads to, where it may lead there.
fn redirect(from: &str, location: &str) -> io::Result<String> {
    let refused = |why: &str| io::Error::other(format!("the server redirects to {location:?}: {why}"));
    let from: Uri = from.parse().map_err(io::Error::other)?;
    let absolute = if location.starts_with('/') && !location.starts_with("//") {
        let scheme = from.scheme_str().unwrap_or_default();
        format!("{scheme}://{}{location}", from.authority().map(|a| a.as_str()).unwrap_or_default())
    } else {
        location.to_owned()
    };
    let to: Uri = absolute.parse().map_err(|_| refused("only http and https are allowed"))?;
    match (from.scheme_str(), to.scheme_str()) {
        (Some("https"), Some("http")) => return Err(refused("not from https to http")),
        (_, Some("http" | "https")) => {}
        _ => return Err(refused("only http and https are allowed")),
    }
    if to.authority().is_none_or(|a| a.as_str().contains('@')) {
        return Err(refused("credentials in URLs are not allowed"));
    }
    if !absolute.ends_with(ADVERTISEMENT) {
        return Err(refused("it is no git repository"));
    }
    Ok(absolute)
}

fn tls(certificates: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if certificates.exists() {
        let unreadable = |e: rustls_pki_types::pem::Error| Error::Invalid(format!("certificates: {e}"));
        let found = CertificateDer::pem_file_iter(certificates).map_err(unreadable)?;
        // Bundles hold certificates rustls cannot use; the others still count.
        roots.add_parsable_certificates(found.filter_map(std::result::Result::ok));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Invalid(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_repositories_only() {
        let check = |from: &str, to: &str, expect: Option<&str>| {
            let from = format!("{from}{ADVERTISEMENT}");
            let to = format!("{to}{ADVERTISEMENT}");
            let expect = expect.map(|e| format!("{e}{ADVERTISEMENT}"));
            assert_eq!(redirect(&from, &to).ok(), expect, "{to}");
        };
        check("http://a/x", "https://b/y", Some("https://b/y"));
        check("http://a:80/x", "/y", Some("http://a:80/y"));
        check("https://a/x", "http://a/x", None);
        check("https://a/x", "https://u:p@a/x", None);
        for to in ["file:///etc", "ssh://a/x", "git://a/x", "//b/x", "gopher://a/x"] {
            check("https://a/x", to, None);
        }
        assert!(redirect("http://a/x", "http://a/elsewhere").is_err());
    }

    #[test]
    fn the_budget_ends() {
        let client = Client::new(Path::new("/nonexistent"), 10).expect("client");
        assert!(client.wire.spend(10).is_ok());
        assert!(client.wire.spend(1).is_err());
    }
}
