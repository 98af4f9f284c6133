//! Bodies of requests and answers.

use api::Status;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use schema::Weight;
use std::io;
use std::time::Duration;

/// The body of every request and answer, whatever carries it.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The largest request body.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// How long the rest of a body is waited for that nobody reads.
const DISCARD: Duration = Duration::from_secs(5);

/// A body that is known as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body without bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// Reads a request body of at most [`LIMIT`] bytes; what is left of a longer one stays in it.
pub async fn read(body: &mut Body) -> Result<Bytes, Status> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Err(e) => Err(Status::bad_request(e.to_string())),
    }
}

/// Reads what nobody has read of a body while its answer is sent: HTTP/2 would reset the stream of a request that is
/// dropped before its end, and the answer that still waits to be sent with it.
pub fn discard(body: Body) {
    if body.is_end_stream() {
        return;
    }
    // Nothing of it is kept: who sends it need not even be known.
    let mut rest = Limited::new(body, LIMIT);
    let drained = async move { while matches!(rest.frame().await, Some(Ok(_))) {} };
    tokio::spawn(tokio::time::timeout(DISCARD, drained));
}

/// Smaller bodies cannot take too much, whatever is in them.
const LIGHT: usize = 256 * 1024;

/// Refuses JSON that is small as text and huge in memory: very many empty values or tiny maps.
pub fn check_weight(bytes: &[u8]) -> Result<(), Status> {
    if bytes.len() < LIGHT || !matches!(bytes.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'[')) {
        return Ok(());
    }
    if Weight::MOST.without(Weight::of_json(bytes)).is_some() {
        return Ok(());
    }
    let message = "Request entity too large: its many small values would take too much memory";
    Err(Status::new(413, "RequestEntityTooLarge", message))
}

fn too_large() -> Status {
    let message = format!("Request entity too large: limit is {LIMIT}");
    Status::new(413, "RequestEntityTooLarge", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_bodies_are_refused() {
        let check = |item: &str, count: usize, heavy: bool| {
            let body = format!("[{}]", vec![item; count].join(","));
            assert!(body.len() <= LIMIT, "{}", body.len());
            assert_eq!(check_weight(body.as_bytes()).is_err(), heavy, "{item} {count}");
        };
        check("{}", 1_000_000, true);
        check("{\"a\":1}", 300_000, true);
        check("0", 1_000_000, true);
        check("0", 60_000, false);
        check("\"{{{{[[[[,,,,\\\"{{{{\"", 60_000, false);
        let honest = "{\"name\":\"a-name-of-some-length\",\"value\":\"and what it is worth in some detail\"}";
        check(honest, LIMIT / 2 / (honest.len() + 1), false);
        check("{}", 1000, false);
    }

    #[tokio::test]
    async fn limits_are_kept() {
        assert_eq!(read(&mut full("abc")).await.map(|b| b.len()), Ok(3));
        let status = read(&mut full(vec![0; LIMIT + 1])).await.map(|b| b.len()).expect_err("too large");
        assert_eq!((status.code, status.message.as_str()), (413, "Request entity too large: limit is 3145728"));
    }
}
