//! Why a webhook gave no answer, in the words of upstream's client.

use api::Status;

/// Why a webhook gave no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The configuration is of no use.
    #[error("{0}")]
    Config(String),
    /// It took too long.
    #[error("Post {uri:?}: context deadline exceeded")]
    Timeout {
        /// What was requested.
        uri: String,
    },
    /// The connection failed.
    #[error("Post {uri:?}: {why}")]
    Transport {
        /// What was requested.
        uri: String,
        /// Why.
        why: String,
    },
    /// It answered with a code that is no success.
    #[error("{}", .0.message)]
    Answer(Status),
}

impl Error {
    /// What a client makes of an answer that is no success: the `Status` sent, or one that says what the code means.
    pub fn answer(code: u16, body: &[u8]) -> Self {
        if let Ok(sent) = serde_json::from_slice::<serde_json::Value>(body)
            && sent["kind"] == "Status"
            && sent["status"] == "Failure"
        {
            let text = |key: &str| sent[key].as_str().unwrap_or("").to_owned();
            let sent_code = sent["code"].as_u64().and_then(|c| u16::try_from(c).ok()).unwrap_or(code);
            return Self::Answer(Status::new(sent_code, &text("reason"), text("message")));
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(2048)]);
        let text = if text.trim().is_empty() { "unknown" } else { text.trim() };
        let (reason, message) = match code {
            400 => ("BadRequest", "the server rejected our request for an unknown reason".to_owned()),
            401 => ("Unauthorized", "the server has asked for the client to provide credentials".into()),
            403 => ("Forbidden", text.to_owned()),
            404 => ("NotFound", "the server could not find the requested resource".into()),
            405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".into()),
            406 => ("NotAcceptable", text.to_owned()),
            409 => ("Conflict", "the server reported a conflict".into()),
            415 => ("UnsupportedMediaType", text.to_owned()),
            422 => ("Invalid", "the server rejected our request due to an error in our request".into()),
            429 => (
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later".into(),
            ),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request".into()),
            504 => (
                "Timeout",
                "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
            ),
            500.. => ("InternalError", format!("an error on the server ({text:?}) has prevented the request from succeeding")),
            _ => ("", format!("the server responded with the status code {code} but did not return more information")),
        };
        Self::Answer(Status::new(code, reason, message))
    }

    /// The code of the answer, when there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Answer(status) => Some(status.code),
            _ => None,
        }
    }
}

/// Why a connection could not be made; what the connector gives.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Connect(pub String);

/// The text of a client's error: that of the connection if it was that, `EOF` where the other side went away.
pub fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = Some(error);
    let mut last = String::new();
    while let Some(error) = at {
        if let Some(connect) = error.downcast_ref::<Connect>() {
            return connect.0.clone();
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "EOF".into();
        }
        last = error.to_string();
        at = error.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_worded() {
        let table: [(u16, &str, &str); 5] = [
            (404, "", "the server could not find the requested resource"),
            (500, "boom\n", "an error on the server (\"boom\") has prevented the request from succeeding"),
            (502, "", "an error on the server (\"unknown\") has prevented the request from succeeding"),
            (403, r#"{"kind":"Status","status":"Failure","message":"no","code":403}"#, "no"),
            (302, "", "the server responded with the status code 302 but did not return more information"),
        ];
        for (code, body, want) in table {
            assert_eq!(Error::answer(code, body.as_bytes()).to_string(), want);
        }
    }
}
