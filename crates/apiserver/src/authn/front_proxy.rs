//! Front proxies: clients of a CA of their own that say in headers whom they speak for.

use super::{AUTHENTICATED, UserInfo};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;

/// What may stand in a header's name as it is (RFC 9110); the rest, and `%`, is escaped.
const KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Who may assert users, and by which headers.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Common names of clients; empty: any that the CA vouches for.
    pub allowed_names: Vec<String>,
    /// Headers of the user's name; the first that is set counts.
    pub username_headers: Vec<String>,
    /// Headers of its UID.
    pub uid_headers: Vec<String>,
    /// Headers of its groups; all count.
    pub group_headers: Vec<String>,
    /// Prefixes of the headers of what else is known.
    pub extra_prefixes: Vec<String>,
}

impl Default for FrontProxy {
    fn default() -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Self {
            allowed_names: one("front-proxy-client"),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl FrontProxy {
    /// Whether a client of this common name may assert users.
    pub fn admits(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|n| n == common_name)
    }

    /// The user that headers assert; `None` when they name none.
    pub fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let first = |names: &[String]| {
            let values = names.iter().filter_map(|n| headers.get(n.as_str())).map(text);
            values.map(|v| v.trim().to_owned()).find(|v| !v.is_empty())
        };
        let name = first(&self.username_headers)?;
        let groups = self.group_headers.iter().flat_map(|n| headers.get_all(n.as_str()));
        let groups = groups.map(text).filter(|g| !g.is_empty());
        let mut user = UserInfo {
            name,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: groups.collect(),
            extra: self.extra(headers),
        };
        if user.name != super::ANONYMOUS && !user.is_in(AUTHENTICATED) && !user.is_in(super::UNAUTHENTICATED) {
            user.groups.push(AUTHENTICATED.into());
        }
        Some(user)
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            for prefix in &self.extra_prefixes {
                let Some(key) = strip_prefix(name.as_str(), prefix) else { continue };
                let key = percent_decode_str(&key.to_lowercase()).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(text(value));
            }
        }
        extra
    }

    /// Removes every header that could assert a user.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in [&self.username_headers, &self.uid_headers, &self.group_headers].into_iter().flatten() {
            headers.remove(name.as_str());
        }
        let asserts = |name: &HeaderName| self.extra_prefixes.iter().any(|p| strip_prefix(name.as_str(), p).is_some());
        let extra: Vec<_> = headers.keys().filter(|n| asserts(n)).cloned().collect();
        extra.into_iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// A header's value, which is bytes: names of users are not all ASCII.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Says in `headers` whom a request is for, to a server that trusts this one as its front proxy.
pub fn assert(user: &UserInfo, headers: &mut HeaderMap) {
    FrontProxy::default().strip(headers);
    let mut add = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(HeaderName::from_static("x-remote-user"), &user.name);
    if !user.uid.is_empty() {
        add(HeaderName::from_static("x-remote-uid"), &user.uid);
    }
    user.groups.iter().for_each(|group| add(HeaderName::from_static("x-remote-group"), group));
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, KEY)).to_lowercase();
        let Ok(name) = HeaderName::try_from(name) else { continue };
        values.iter().for_each(|value| add(name.clone(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_survive_the_way() {
        let mut user = UserInfo::new("jos\u{e9}", &["\u{c0ac}\u{acf5}", "c"]);
        user.uid = "u".into();
        user.extra.insert("example.org/Key%".to_lowercase(), vec!["1".into(), "\u{e9}".into()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("forged"));
        headers.insert("x-remote-extra-forged", HeaderValue::from_static("forged"));
        assert(&user, &mut headers);
        assert_eq!(FrontProxy::default().user(&headers), Some(user));
        FrontProxy::default().strip(&mut headers);
        assert!(headers.is_empty());
        assert_eq!(FrontProxy::default().user(&headers), None);
    }

    #[test]
    fn names_are_checked() {
        let check = |names: &[&str], name: &str, want: bool| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            assert_eq!(FrontProxy { allowed_names: names, ..FrontProxy::default() }.admits(name), want, "{name}");
        };
        check(&["a"], "a", true);
        check(&["a"], "b", false);
        check(&[], "b", true);
    }
}
