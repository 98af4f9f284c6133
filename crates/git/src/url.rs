//! Where a repository comes from, and which directory of the volume it goes to.

use crate::{Error, Result};
use gix::url::Scheme;
use std::path::{Component, Path, PathBuf};

/// Reads the URL of a repository; only HTTP(S) without credentials will do.
pub fn parse(text: &str) -> Result<gix::Url> {
    let invalid = |why: &str| match may_hold_credentials(text) {
        true => credentials(),
        false => Error::Invalid(format!("repository {text:?}: {why}")),
    };
    let url = gix::url::parse(text).map_err(|_| invalid("is not a URL"))?;
    if !matches!(url.scheme, Scheme::Http | Scheme::Https) {
        return Err(invalid("only http:// and https:// are allowed"));
    }
    if url.user().is_some() || url.password().is_some() {
        return Err(credentials());
    }
    if url.host().is_none_or(str::is_empty) {
        return Err(invalid("names no host"));
    }
    Ok(url)
}

/// Whether a text that may be no URL has a user with a password, or a user that may be a token, before its path.
fn may_hold_credentials(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let host = rest.split('/').next().unwrap_or_default();
    host.rsplit_once('@').is_some_and(|(user, _)| scheme.is_some() || user.contains(':'))
}

/// The text is not repeated: it would show them in an event.
fn credentials() -> Error {
    Error::Invalid("the repository's URL holds credentials, which are not allowed".into())
}

/// The directory below the volume.
pub fn directory(asked: &str, url: &gix::Url) -> Result<PathBuf> {
    let relative = if asked.is_empty() { name(url)? } else { asked.into() };
    let inside = Path::new(&relative).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside || relative.contains('\0') {
        return Err(Error::Invalid(format!("directory {relative:?} is not below the volume")));
    }
    Ok(Path::new(&relative).components().filter(|c| matches!(c, Component::Normal(_))).collect())
}

/// The name that git gives a clone: the last part of the path, without `.git`.
fn name(url: &gix::Url) -> Result<String> {
    let path = url.path.to_string();
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/.git").unwrap_or(path).trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    match last {
        "" | "." | ".." => Err(Error::Invalid("the repository's URL has no name; set `directory`".into())),
        name => Ok(name.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_is_allowed() {
        let check = |text: &str, expect: Result<&str>| {
            let got = parse(text).map(|u| u.to_bstring().to_string()).map_err(|e| e.to_string());
            assert_eq!(got, expect.map(str::to_owned).map_err(|e| e.to_string()));
        };
        let refused = |text: &str, why: &str| check(text, Err(Error::Invalid(format!("repository {text:?}: {why}"))));
        check("https://example.com/a.git", Ok("https://example.com/a.git"));
        check("http://10.0.0.1:8080/a", Ok("http://10.0.0.1:8080/a"));
        for text in ["file:///etc", "/etc", "../up", "ssh://h/a", "git@h:a", "git://h/a", "ext::sh -c true"] {
            assert!(parse(text).is_err(), "{text}");
        }
        refused("ssh://h/a", "only http:// and https:// are allowed");
        refused("ssh://h/a@b", "only http:// and https:// are allowed");
        refused("git@h:a", "only http:// and https:// are allowed");
        for text in ["ssh://u:secret@h/a", "u:secret@h:a", "http://u:secret@h:port/a", "ssh://token@h/a"] {
            check(text, Err(credentials()));
        }
        check(
            "https://u:p@h/a",
            Err(Error::Invalid("the repository's URL holds credentials, which are not allowed".into())),
        );
    }

    #[test]
    fn directories_stay_below_the_volume() {
        let check = |asked: &str, url: &str, expect: Option<&str>| {
            let url = parse(url).expect("url");
            assert_eq!(directory(asked, &url).ok(), expect.map(PathBuf::from), "{asked} {url:?}");
        };
        let url = "https://h/org/repo.git";
        check("", url, Some("repo"));
        check("", "https://h/org/repo/.git/", Some("repo"));
        check("", "https://h/", None);
        check(".", url, Some(""));
        check("a/b", url, Some("a/b"));
        check("../a", url, None);
        check("a/../../b", url, None);
        check("/abs", url, None);
        check("", "https://h/org/..", None);
    }
}
