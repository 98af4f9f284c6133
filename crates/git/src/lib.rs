//! The clone behind a gitRepo volume: `sagong git-clone URL REVISION DIRECTORY`.
//!
//! The kubelet starts this program in a container of the pod that has no image: an empty, read-only root with the
//! volume at [`VOLUME`], certificates at [`CERTIFICATES`] and an error file at [`MESSAGE`], in the pod's network, as
//! an unprivileged user. The flow: [`limits`] takes what is left of rights, [`url`] says where to and where from,
//! [`http`] is the only way out, [`repository`] fetches, [`checkout`] writes the files. A failure is one line in the
//! error file and exit code 1.
//!
//! Invariants: nothing that a repository or a server says makes this process start a program, read another file or
//! speak another protocol than HTTP(S), redirects included; configuration is that of the new repository alone; what
//! is received and what is written are bounded before either happens.
//!
//! Deliberately absent: hooks, filters, credentials, helpers, submodules, ssh, git and file URLs, shallow clones,
//! SHA-256 repositories.

pub mod checkout;
pub mod http;
pub mod limits;
pub mod repository;
pub mod url;

use limits::{LIMITS, Limits};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Where the volume is in the container.
pub const VOLUME: &str = "/volume";
/// Certificate authorities in the container, one PEM file.
pub const CERTIFICATES: &str = "/certificates.pem";
/// The file that a failure is told in.
pub const MESSAGE: &str = "/message";

/// Longest message.
const MAX_MESSAGE: usize = 1024;

/// Why a clone failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments are wrong.
    #[error("{0}")]
    Invalid(String),
    /// The server or the network failed.
    #[error("{0}")]
    Fetch(String),
    /// There is no such revision.
    #[error("revision \"{0}\" is not in the repository")]
    Revision(String),
    /// The working tree could not be written.
    #[error("check out: {0}")]
    Checkout(String),
    /// A bound was reached.
    #[error("the repository is too large: {0}")]
    TooLarge(String),
}

impl Error {
    /// An error with all its causes in one line.
    fn fetch(error: &dyn std::error::Error) -> Self {
        Self::Fetch(chain(error))
    }

    fn checkout(error: &dyn std::error::Error) -> Self {
        Self::Checkout(chain(error))
    }
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// An error and its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !said.iter().any(|s| s.contains(&text)) {
            said.push(text);
        }
        next = error.source();
    }
    said.join(": ")
}

/// What is to be cloned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where from; `http` or `https`.
    pub repository: String,
    /// Branch, tag or commit; empty: what the server calls its HEAD.
    pub revision: String,
    /// Where to below the volume; empty: a directory named as the repository, `.`: the volume itself.
    pub directory: String,
}

/// Runs the verb. `args` follow the word `git-clone`. Must be called while the process has one thread.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let done = parse(args).and_then(|request| {
        limits::apply()?;
        clone(&request, Path::new(VOLUME), Path::new(CERTIFICATES), &LIMITS)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = printable(&error.to_string());
            if std::fs::write(MESSAGE, &text).is_err() {
                eprintln!("{text}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Clones into a volume; on failure what is there is a part of no use.
pub fn clone(request: &Request, volume: &Path, certificates: &Path, limits: &Limits) -> Result<()> {
    let url = url::parse(&request.repository)?;
    let target = volume.join(url::directory(&request.directory, &url)?);
    let client = http::Client::new(certificates, limits.received)?;
    let (repository, head) = repository::fetch(url, client, &target)?;
    match repository::select(&repository, head, &request.revision)? {
        Some(commit) => checkout::write(&repository, commit, limits),
        None => Ok(()),
    }
}

fn parse(args: Vec<OsString>) -> Result<Request> {
    let words: std::result::Result<Vec<String>, _> = args.into_iter().map(OsString::into_string).collect();
    match words.map(<[String; 3]>::try_from) {
        Ok(Ok([repository, revision, directory])) => Ok(Request { repository, revision, directory }),
        _ => Err(Error::Invalid("usage: git-clone URL REVISION DIRECTORY".into())),
    }
}

/// A text that may be shown to people: one line, no control characters, not long. It may hold the server's words.
fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = clean.split_whitespace().collect();
    let mut line = words.join(" ");
    let end = (0..=MAX_MESSAGE.min(line.len())).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_short_line() {
        let check = |text: &str, expect: &str| assert_eq!(printable(text), expect);
        check("a\u{1b}[31m\n\nb", "a [31m b");
        check(&"é".repeat(MAX_MESSAGE), &"é".repeat(MAX_MESSAGE / 2));
    }

    #[test]
    fn three_arguments() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(parse(words(&["u", "", "."])).is_ok());
        assert!(parse(words(&["u", ""])).is_err());
    }
}
