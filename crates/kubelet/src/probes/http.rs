//! HTTP probes, and the requests of HTTP lifecycle hooks.

use super::{Outcome, join_host_port, port, tcp};
use api::k8s::core::v1::{Container, HTTPGetAction};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// Probes by GET: 200 to 399 is success; a redirect to another host is success with a warning.
pub async fn probe(action: &HTTPGetAction, container: &Container, ip: &str, timeout: Duration) -> Outcome {
    let request = match Request::new(action, container, ip, "probe") {
        Ok(request) => request,
        Err(why) => return Outcome::Unknown(why),
    };
    match request.send(timeout).await {
        Ok(answer) if (200..300).contains(&answer.status) => Outcome::Success,
        Ok(answer) if (300..400).contains(&answer.status) => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
        Err(why) => Outcome::Failure(why),
    }
}

/// A GET request of a probe or hook.
pub struct Request {
    https: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

/// What came back.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// At most 10 KiB.
    pub body: String,
    location: Option<String>,
}

impl Request {
    /// Builds the request of an action; `agent` is `probe` or `lifecycle`.
    pub fn new(action: &HTTPGetAction, container: &Container, ip: &str, agent: &str) -> Result<Self, String> {
        let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| ip.to_owned());
        let path = action.path.clone().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let given = action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
        let mut headers: Vec<(String, String)> = given.collect();
        let default = |headers: &mut Vec<(String, String)>, name: &str, value: String| {
            if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                headers.push((name.to_owned(), value));
            }
        };
        default(&mut headers, "User-Agent", format!("kube-{agent}/1.36"));
        default(&mut headers, "Accept", "*/*".into());
        // An empty value asks for the header to be left out.
        headers.retain(|(name, value)| {
            !value.is_empty() || !["user-agent", "accept"].contains(&name.to_lowercase().as_str())
        });
        let https = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
        Ok(Self { https, host, port: port(&action.port, container)?, path, headers })
    }

    /// The same without TLS, where it has TLS.
    pub fn without_tls(&self) -> Option<Self> {
        self.https.then(|| Self {
            https: false,
            host: self.host.clone(),
            port: self.port,
            path: self.path.clone(),
            headers: self.headers.clone(),
        })
    }

    /// `host:port`
    pub fn address(&self) -> String {
        join_host_port(&self.host, self.port)
    }

    fn url(&self) -> String {
        format!(
            "{}://{}{}",
            if self.https { "https" } else { "http" },
            join_host_port(&self.host, self.port),
            self.path
        )
    }

    /// Sends it and follows redirects on the same host. The error is Go's text.
    pub async fn send(mut self, timeout: Duration) -> Result<Answer, String> {
        let url = self.url();
        let all = async {
            for _ in 0..MAX_REDIRECTS {
                let answer = self.once(timeout).await?;
                match answer
                    .location
                    .as_deref()
                    .filter(|_| (300..400).contains(&answer.status))
                    .map(|l| self.redirect(l))
                {
                    Some(true) => {}
                    _ => return Ok(answer),
                }
            }
            Err("stopped after 10 redirects".to_owned())
        };
        match tokio::time::timeout(timeout, all).await {
            Ok(result) => result.map_err(|why| format!("Get \"{url}\": {why}")),
            Err(_) => Err(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )),
        }
    }

    /// Points the request at a redirect's target; false where that is another host.
    fn redirect(&mut self, location: &str) -> bool {
        let Ok(uri) = location.parse::<http::Uri>() else { return false };
        if uri.host().is_some_and(|h| h.trim_matches(['[', ']']) != self.host) {
            return false;
        }
        if let Some(scheme) = uri.scheme_str() {
            self.https = scheme == "https";
            self.port = uri.port_u16().unwrap_or(if self.https { 443 } else { 80 });
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        self.path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.path.rsplit_once('/').map_or("", |(d, _)| d))
        };
        true
    }

    async fn once(&self, timeout: Duration) -> Result<Answer, String> {
        let stream = tcp::connect(&self.host, self.port, timeout).await?;
        if !self.https {
            return self.exchange(TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(TLS.clone());
        let stream = connector.connect(name, stream).await.map_err(|e| match e.to_string() {
            text if text.contains("InvalidContentType") => "http: server gave HTTP response to HTTPS client".to_owned(),
            text => format!("remote error: {text}"),
        })?;
        self.exchange(TokioIo::new(stream)).await
    }

    async fn exchange<I>(&self, io: I) -> Result<Answer, String>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::get(&self.path).header(http::header::CONNECTION, "close");
        if !self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            request = request.header(http::header::HOST, join_host_port(&self.host, self.port));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() })?;
        let status = response.status().as_u16();
        let location = response.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        // A longer body is cut off, which is no failure.
        let body =
            Limited::new(response.into_body(), MAX_BODY).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        connection.abort();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), location })
    }
}

/// Probes do not verify certificates: they ask whether something answers, not who.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Unverified(provider.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap_or_else(|error| unreachable!("ring offers the default protocol versions: {error}"));
    Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
});

#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn serve(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("addr").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn status_codes_decide() {
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Outcome::Success),
            (
                "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
                Outcome::Failure("HTTP probe failed with statuscode: 500".into()),
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://example.com/\r\ncontent-length: 1\r\n\r\nx",
                Outcome::Warning("Probe terminated redirects, Response body: x".into()),
            ),
        ];
        for (answer, want) in table {
            let action = HTTPGetAction {
                port: api::machinery::util::intstr::IntOrString::Int(serve(answer).await.into()),
                ..HTTPGetAction::default()
            };
            assert_eq!(probe(&action, &Container::default(), "127.0.0.1", Duration::from_secs(2)).await, want);
        }
    }
}
