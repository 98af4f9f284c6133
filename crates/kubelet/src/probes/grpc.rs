//! Probes by the gRPC health protocol (grpc.health.v1.Health/Check), its two messages framed by hand.

use super::{Outcome, join_host_port, tcp};
use crate::format::{duration, quote};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

const MAX_MESSAGE: usize = 4096;

/// Asks for the health of a service: SERVING is success.
pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = join_host_port(host, port);
    let stream = match tcp::connect(host, port, timeout).await {
        Ok(stream) => stream,
        Err(_) => {
            let (address, timeout) = (quote(&address), duration(timeout));
            return Outcome::Failure(format!(
                "timeout: failed to connect service {address} within {timeout}: context deadline exceeded"
            ));
        }
    };
    match tokio::time::timeout(timeout, check(TokioIo::new(stream), &address, service)).await {
        Ok(Ok(1)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("service unhealthy (responded with {})", quote(word(status)))),
        Ok(Err(why)) => Outcome::Failure(why),
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {}", duration(timeout))),
    }
}

fn word(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

async fn check(io: TokioIo<tokio::net::TcpStream>, address: &str, service: &str) -> Result<u64, String> {
    let failed = |why: String| format!("error: health rpc probe failed: {why}");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.map_err(|e| failed(e.to_string()))?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", "kube-probe/1.36")
        .header("te", "trailers")
        .body(Full::new(request(service)))
        .map_err(|e| failed(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), MAX_MESSAGE).collect().await.map_err(|e| failed(e.to_string()))?;
    connection.abort();
    // A failed call has its status in the headers, any other in the trailers.
    let trailers = body.trailers().cloned().unwrap_or(headers);
    let text = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    match text("grpc-status").as_str() {
        "0" => Ok(status(&body.to_bytes())),
        "12" => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            text("grpc-message")
        )),
        code => Err(failed(format!("rpc error: code = {} desc = {}", code_word(code), text("grpc-message")))),
    }
}

fn code_word(code: &str) -> &str {
    match code {
        "5" => "NotFound",
        "7" => "PermissionDenied",
        "13" => "Internal",
        "14" => "Unavailable",
        "16" => "Unauthenticated",
        _ => "Unknown",
    }
}

/// `HealthCheckRequest{service}` in a gRPC frame.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

/// `HealthCheckResponse.status` of a gRPC frame; an absent field is 0.
fn status(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, value, ..]) => u64::from(*value),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), 1);
        assert_eq!(status(&[0, 0, 0, 0, 0]), 0);
    }
}
