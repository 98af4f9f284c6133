//! Words and limits of calls to plugins.

use std::time::Duration;
use tonic::{Code, Request, Status};

/// How long a call may take, as upstream's.
pub const WITHIN: Duration = Duration::from_secs(120);

/// A request with a deadline.
pub fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(WITHIN);
    request
}

/// Go's text of a gRPC error, which events show.
pub fn text(status: &Status) -> String {
    let code = match status.code() {
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// Whether the call has certainly not taken effect; otherwise it may go on behind our back.
pub fn is_final(status: &Status) -> bool {
    let uncertain =
        [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable, Code::ResourceExhausted, Code::Aborted];
    !uncertain.contains(&status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_go() {
        assert_eq!(text(&Status::internal("x")), "rpc error: code = Internal desc = x");
        assert_eq!(text(&Status::cancelled("x")), "rpc error: code = Canceled desc = x");
        assert!(is_final(&Status::internal("")) && !is_final(&Status::aborted("")));
    }
}
