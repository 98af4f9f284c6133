//! URLs as Go parses them: `url('https://example.com/path')`.

use super::{Overload, opaque, text};
use crate::collection::{Key, Map};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Text, Value};
use std::any::Any;
use std::collections::BTreeMap;

pub(super) static TABLE: &[Overload] = &[
    Overload::new("url", "url(string) -> kubernetes.URL", Cost::Transform(1), url),
    Overload::new("isURL", "isURL(string) -> bool", Cost::One, is_url),
    Overload::new("getScheme", "kubernetes.URL::getScheme() -> string", Cost::One, |args| {
        part(args, |url| url.scheme.clone())
    }),
    Overload::new("getHost", "kubernetes.URL::getHost() -> string", Cost::One, |args| {
        part(args, |url| url.host.clone())
    }),
    Overload::new("getHostname", "kubernetes.URL::getHostname() -> string", Cost::One, |args| {
        part(args, |url| url.hostname().to_owned())
    }),
    Overload::new("getPort", "kubernetes.URL::getPort() -> string", Cost::One, |args| {
        part(args, |url| url.port().to_owned())
    }),
    Overload::new("getEscapedPath", "kubernetes.URL::getEscapedPath() -> string", Cost::One, |args| {
        part(args, Url::escaped_path)
    }),
    Overload::new("getQuery", "kubernetes.URL::getQuery() -> map(string, list(string))", Cost::One, query),
];

#[derive(Debug)]
struct Url {
    text: String,
    scheme: String,
    host: String,
    /// The path as written.
    path: String,
    query: String,
}

impl Opaque for Url {
    fn type_name(&self) -> &'static str {
        "kubernetes.URL"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.text == self.text)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What is wrong with a text that an absolute URL or an absolute path is expected to be.
pub(super) fn check_request_uri(text: &str) -> Result<(), String> {
    Url::parse(text, true).map(|_| ()).map_err(|why| format!("parse {text:?}: {why}"))
}

impl Url {
    /// `request`: as `url.ParseRequestURI` does, which knows no fragment and wants an absolute URL.
    fn parse(text: &str, request: bool) -> Result<Self, String> {
        let (body, fragment) =
            if request { (text, None) } else { text.split_once('#').map_or((text, None), |(b, f)| (b, Some(f))) };
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".into());
        }
        if body.is_empty() && request {
            return Err("empty url".into());
        }
        let mut url = Self {
            text: text.to_owned(),
            scheme: String::new(),
            host: String::new(),
            path: String::new(),
            query: String::new(),
        };
        if body == "*" {
            url.path = "*".into();
            return Ok(url);
        }
        let (scheme, rest) = scheme(body)?;
        url.scheme = scheme.to_ascii_lowercase();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query.to_owned();
        if !rest.starts_with('/') {
            if !url.scheme.is_empty() {
                return Ok(url);
            }
            if request {
                return Err("invalid URI for request".into());
            }
            if rest.split('/').next().is_some_and(|first| first.contains(':')) {
                return Err("first path segment in URL cannot contain colon".into());
            }
        }
        let authority =
            rest.strip_prefix("//").filter(|_| !url.scheme.is_empty() || !request && !rest.starts_with("///"));
        let path = match authority {
            None => rest,
            Some(authority) => {
                let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
                url.host = host(authority)?;
                path
            }
        };
        unescape(path, false)?;
        fragment.map(|fragment| unescape(fragment, false)).transpose()?;
        url.path = path.to_owned();
        Ok(url)
    }

    fn port_start(&self) -> Option<usize> {
        let after = self.host.rfind(']').map_or(0, |at| at + 1);
        self.host[after..].rfind(':').map(|at| after + at)
    }

    fn hostname(&self) -> &str {
        let host = &self.host[..self.port_start().unwrap_or(self.host.len())];
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> &str {
        self.port_start().map_or("", |at| &self.host[at + 1..])
    }

    /// The path as written where that is a valid encoding, else encoded anew.
    fn escaped_path(&self) -> String {
        let valid = self.path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/[]%".contains(&b));
        if valid {
            return self.path.clone();
        }
        let plain = unescape(&self.path, false).unwrap_or_default();
        let mut out = String::new();
        for b in plain {
            match b {
                b if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b) => out.push(b.into()),
                b => out.push_str(&format!("%{b:02X}")),
            }
        }
        out
    }
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host(authority: &str) -> Result<String, String> {
    let host = match authority.rsplit_once('@') {
        None => authority,
        Some((user, host)) => {
            if !user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b)) {
                return Err("net/url: invalid userinfo".into());
            }
            unescape(user, false)?;
            host
        }
    };
    let after = if host.starts_with('[') {
        let close = host.rfind(']').ok_or("missing ']' in host")?;
        &host[close + 1..]
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let port = after.strip_prefix(':');
    if !after.is_empty() && !port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {after:?} after host"));
    }
    let bad =
        host.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(*c));
    if let Some(bad) = bad {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    String::from_utf8(unescape(host, false)?).map_err(|_| "invalid UTF-8 in host name".into())
}

/// Undoes percent-encoding; `+` is a space in queries.
fn unescape(text: &str, query: bool) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
                let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                    let end = (at + 3).min(bytes.len());
                    return Err(format!("invalid URL escape {:?}", String::from_utf8_lossy(&bytes[at..end])));
                };
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            b'+' if query => out.push(b' '),
            b => out.push(b),
        }
        at += 1;
    }
    Ok(out)
}

fn url<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let text = text(args, 0)?;
    let failed = |why: String| EvalError::new(format!("URL parse error during conversion from string: {why}"));
    check_request_uri(text).map_err(failed)?;
    Url::parse(text, false).map(Value::opaque).map_err(|why| failed(format!("parse {text:?}: {why}")))
}

fn is_url<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(check_request_uri(text(args, 0)?).is_ok()))
}

fn part<'a>(args: &[Value<'a>], part: fn(&Url) -> String) -> Result<Value<'a>, EvalError> {
    Ok(Value::text(part(opaque(args, 0)?)))
}

fn query<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let url: &Url = opaque(args, 0)?;
    let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| unescape(text, true).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if let (Ok(key), Ok(value)) = (plain(key), plain(value)) {
            found.entry(key).or_default().push(Value::text(value));
        }
    }
    let entries = found.into_iter().map(|(key, values)| (Key::String(Text::Shared(key.into())), Value::list(values)));
    Ok(Value::Map(Map::values(entries.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        #[track_caller]
        fn check(text: &str, expect: Result<(&str, &str, &str, &str), &str>) {
            let url = check_request_uri(text).and_then(|()| Url::parse(text, false));
            let got = url
                .as_ref()
                .map(|u| (u.scheme.clone(), u.hostname().to_owned(), u.port().to_owned(), u.escaped_path()));
            let got = got
                .as_ref()
                .map(|(s, h, p, e)| (s.as_str(), h.as_str(), p.as_str(), e.as_str()))
                .map_err(|e| e.as_str());
            assert_eq!(got, expect);
        }
        check(
            "https://user:pass@example.com:80/path with spaces/?a=b#c",
            Ok(("https", "example.com", "80", "/path%20with%20spaces/")),
        );
        check("http://[::1]:8080", Ok(("http", "::1", "8080", "")));
        check("/path", Ok(("", "", "", "/path")));
        check("../relative", Err("parse \"../relative\": invalid URI for request"));
        check("http://a b", Err("parse \"http://a b\": invalid character \" \" in host name"));
        check("http://a:x", Err("parse \"http://a:x\": invalid port \":x\" after host"));
        check("http://a/%zz", Err("parse \"http://a/%zz\": invalid URL escape \"%zz\""));
    }
}
