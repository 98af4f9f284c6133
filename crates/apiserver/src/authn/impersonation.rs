//! Impersonation: acting as another user, for those who may.
//!
//! Constrained modes (KEP-5284) come first: each needs a permission for the kind of user (`impersonate:<mode>`) and
//! one for what is done as that user (`impersonate-on:<mode>:<verb>`). The permission `impersonate` of old allows
//! everything and comes last; but the mode that last worked for a user comes first of all. When none allows it, the
//! first refusal is told.

use super::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo, service_account};
use crate::authz::{Attributes, authorize, forbidden};
use crate::handlers::Request;
use crate::server::ApiServer;
use api::Status;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From so many values on, one permission for all of them is asked for first.
const MANY: usize = 4;

/// A way to impersonate: its name, and whom it is for.
struct Mode {
    name: &'static str,
    applies: fn(&UserInfo, &UserInfo) -> bool,
}

const MODES: [Mode; 4] = [
    Mode {
        name: "associated-node",
        applies: |wanted, user| {
            let is_own = user.pod_node().is_some_and(|own| node_of(&wanted.name) == Some(own));
            is_alone(wanted) && is_own && service_account_of(&user.name).is_some()
        },
    },
    Mode { name: "arbitrary-node", applies: |wanted, _| is_alone(wanted) && node_of(&wanted.name).is_some() },
    Mode {
        name: "serviceaccount",
        applies: |wanted, _| is_alone(wanted) && service_account_of(&wanted.name).is_some(),
    },
    Mode {
        name: "user-info",
        applies: |wanted, _| node_of(&wanted.name).is_none() && service_account_of(&wanted.name).is_none(),
    },
];

/// The user a request asks to act as; the user itself when it does not.
pub async fn impersonate(server: &ApiServer, user: Arc<UserInfo>, request: &Request) -> Result<Arc<UserInfo>, Status> {
    let Some(wanted) = read(&request.headers)? else { return Ok(user) };
    let last_modes = &server.authn().last_modes;
    let (last, mut refusal) = (last_modes.of(&user.name), None);
    let all = MODES.iter().map(Some).chain([None]);
    // The way that worked last comes first, and its refusal is the one that is told.
    let mut ways: Vec<(usize, Option<&Mode>)> = all.enumerate().collect();
    ways.sort_by_key(|(i, _)| Some(*i) != last);
    for (i, mode) in ways.into_iter().filter(|(_, mode)| mode.is_none_or(|mode| (mode.applies)(&wanted, &user))) {
        let attempt = Attempt { server, request, user: &user, wanted: &wanted, mode };
        match attempt.run().await {
            Ok(became) => {
                last_modes.remember(&user.name, i);
                return Ok(Arc::new(became));
            }
            Err(status) => refusal = refusal.or(Some(status)),
        }
    }
    Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// The mode that last worked, by the name of who impersonates; it is most likely to work again.
#[derive(Default)]
pub struct LastModes(Mutex<HashMap<String, usize>>);

impl LastModes {
    /// Names that are remembered; beyond them everything is forgotten, as only the order of attempts is lost.
    const MAX: usize = 10_000;

    fn of(&self, name: &str) -> Option<usize> {
        self.0.lock().get(name).copied()
    }

    fn remember(&self, name: &str, mode: usize) {
        let mut modes = self.0.lock();
        if modes.get(name) != Some(&mode) {
            if modes.len() >= Self::MAX {
                modes.clear();
            }
            modes.insert(name.to_owned(), mode);
        }
    }
}

fn read(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    // Headers are bytes. What cannot be read must not be left out: the request would be its sender's own.
    let read = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let text = |name: &str| headers.get(name).map(read).unwrap_or_default();
    let groups = headers.get_all(GROUP).iter().map(read).collect();
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().push(read(value));
    }
    let wanted = UserInfo { name: text(USER), uid: text(UID), groups, extra };
    match () {
        () if !wanted.name.is_empty() => Ok(Some(wanted)),
        () if wanted == UserInfo::default() => Ok(None),
        () => Err(Status::bad_request(format!("requested {} without impersonating a user name", described(&wanted)))),
    }
}

/// A user as Go prints one.
fn described(user: &UserInfo) -> String {
    let list = |items: &[String]| {
        let items: Vec<_> = items.iter().map(|i| format!("{i:?}")).collect();
        format!("[]string{{{}}}", items.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let extra: Vec<_> = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
    let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:map[string][]string{extra}}}",
        user.name, user.uid
    )
}

/// One mode's questions; without a mode those of the permission `impersonate`.
struct Attempt<'a> {
    server: &'a ApiServer,
    request: &'a Request,
    user: &'a UserInfo,
    wanted: &'a UserInfo,
    mode: Option<&'a Mode>,
}

/// What is impersonated: group, resource, subresource, namespace and name.
type What<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

impl Attempt<'_> {
    async fn run(&self) -> Result<UserInfo, Status> {
        self.may_act().await?;
        let groups = self.name().await?;
        if !self.wanted.uid.is_empty() {
            self.may((AUTHENTICATION, "uids", "", "", &self.wanted.uid)).await?;
        }
        self.groups().await?;
        self.extra().await?;
        Ok(complete(UserInfo { groups: groups.unwrap_or_else(|| self.wanted.groups.clone()), ..self.wanted.clone() }))
    }

    /// Whether the user may do what is asked as somebody else.
    async fn may_act(&self) -> Result<(), Status> {
        let Some(mode) = self.mode else { return Ok(()) };
        let own = Attributes::of(self.user, &self.request.info);
        let verb = format!("impersonate-on:{}:{}", mode.name, own.verb);
        authorize(self.server, &Attributes { verb: &verb, ..own }, None).await.map(drop)
    }

    /// Whether the user may impersonate it.
    async fn may(&self, what: What<'_>) -> Result<(), Status> {
        let verb = self.verb();
        authorize(self.server, &self.attributes(&verb, what), None).await.map(drop)
    }

    fn verb(&self) -> String {
        self.mode.map_or_else(|| "impersonate".to_owned(), |mode| format!("impersonate:{}", mode.name))
    }

    fn attributes<'b>(
        &'b self,
        verb: &'b str,
        (group, resource, subresource, namespace, name): What<'b>,
    ) -> Attributes<'b> {
        let version = "v1";
        Attributes {
            user: self.user,
            verb,
            is_resource: true,
            group,
            version,
            namespace,
            resource,
            subresource,
            name,
            path: "",
            field_selector: "",
            label_selector: "",
        }
    }

    /// The group of users and groups, which constrained modes have moved out of the core.
    fn group(&self) -> &'static str {
        if self.mode.is_some() { AUTHENTICATION } else { "" }
    }

    /// Checks the name; gives the groups that follow from it.
    async fn name(&self) -> Result<Option<Vec<String>>, Status> {
        let name = &self.wanted.name;
        if let Some((namespace, account)) = service_account_of(name) {
            self.may((self.group(), "serviceaccounts", "", namespace, account)).await?;
            return Ok(self.wanted.groups.is_empty().then(|| service_account::groups(namespace)));
        }
        match (self.mode, node_of(name)) {
            (Some(mode), Some(node)) => {
                // A node agent's permission is for whichever node it runs on.
                let node = if mode.name == "associated-node" { "*" } else { node };
                self.may((self.group(), "nodes", "", "", node)).await?;
                Ok(Some(vec!["system:nodes".into()]))
            }
            _ => self.may((self.group(), "users", "", "", name)).await.map(|()| None),
        }
    }

    async fn groups(&self) -> Result<(), Status> {
        let groups = &self.wanted.groups;
        if self.mode.is_some() {
            let refused = |name: &str, why: &str| {
                let verb = self.verb();
                Err(forbidden(&self.attributes(&verb, (self.group(), "groups", "", "", name)), why))
            };
            if groups.iter().any(String::is_empty) {
                return refused("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|g| g == MASTERS) {
                return refused(MASTERS, "impersonating the system:masters group is not allowed");
            }
            if groups.len() >= MANY && self.may((self.group(), "groups", "", "", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.may((self.group(), "groups", "", "", group)).await?;
        }
        Ok(())
    }

    async fn extra(&self) -> Result<(), Status> {
        let extra = &self.wanted.extra;
        if self.mode.is_some() {
            if let Some(why) = odd_extra(extra) {
                let verb = self.verb();
                return Err(forbidden(&self.attributes(&verb, (AUTHENTICATION, "userextras", "", "", "")), &why));
            }
            let many = extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if many && self.may((AUTHENTICATION, "userextras", "*", "", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.may((AUTHENTICATION, "userextras", key, "", value)).await?;
            }
        }
        Ok(())
    }
}

/// Why constrained modes do not let these be impersonated.
fn odd_extra(extra: &BTreeMap<String, Vec<String>>) -> Option<String> {
    extra.iter().find_map(|(key, values)| match key.split_once('/') {
        _ if key.is_empty() => Some("impersonating the empty string key in extra is not allowed".into()),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => match () {
            () if *key != key.to_lowercase() => {
                Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"))
            }
            () if values.iter().any(String::is_empty) => {
                Some("impersonating the empty string value in extra is not allowed".into())
            }
            () => None,
        },
        _ => Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: must be a \
             domain-prefixed path (such as \"acme.io/foo\")"
        )),
    })
}

/// Namespace and name of the service account that a user is.
pub fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn node_of(user: &str) -> Option<&str> {
    let plain = |name: &&str| {
        let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-');
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        name.len() <= 253 && name.bytes().all(allowed) && name.split('.').all(label)
    };
    user.strip_prefix("system:node:").filter(plain)
}

/// Whether nothing but the name is given.
fn is_alone(wanted: &UserInfo) -> bool {
    wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty()
}

fn complete(mut wanted: UserInfo) -> UserInfo {
    if wanted.name == ANONYMOUS {
        if !wanted.is_in(UNAUTHENTICATED) {
            wanted.groups.push(UNAUTHENTICATED.into());
        }
    } else if !wanted.is_in(AUTHENTICATED) && !wanted.is_in(UNAUTHENTICATED) {
        wanted.groups.push(AUTHENTICATED.into());
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::super::NODE_NAME;
    use super::*;

    #[test]
    fn the_way_that_last_worked_is_remembered() {
        let modes = LastModes::default();
        assert_eq!(modes.of("a"), None);
        modes.remember("a", MODES.len());
        modes.remember("b", 1);
        modes.remember("a", 3);
        assert_eq!((modes.of("a"), modes.of("b")), (Some(3), Some(1)));
        (0..LastModes::MAX).for_each(|i| modes.remember(&i.to_string(), 0));
        assert!(modes.0.lock().len() <= LastModes::MAX);
    }

    #[test]
    fn headers_are_read_and_completed() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), Ok(None));
        headers.insert("impersonate-extra-scopes%2fa", "x".parse().expect("value"));
        let refused = read(&headers).expect_err("no user");
        let want = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string(nil), \
                    Extra:map[string][]string{\"scopes/a\":[]string{\"x\"}}} without impersonating a user name";
        assert_eq!((refused.code, refused.message.as_str()), (400, want));
        headers.insert(USER, "a".parse().expect("value"));
        let user = complete(read(&headers).expect("read").expect("user"));
        assert_eq!(user.groups, ["system:authenticated"]);
        assert_eq!(user.extra.get("scopes/a"), Some(&vec!["x".to_owned()]));
    }

    #[test]
    fn names_that_are_not_ascii_are_impersonated_too() {
        let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("value");
        let mut headers = HeaderMap::from_iter([(http::HeaderName::from_static(USER), bytes("jos\u{e9}".as_bytes()))]);
        headers.append(GROUP, bytes("\u{c0ac}\u{acf5}".as_bytes()));
        let user = read(&headers).expect("read").expect("user");
        assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jos\u{e9}", &["\u{c0ac}\u{acf5}".to_owned()][..]));
        // Neither is what is no UTF-8 passed over: that would make it the sender's own request.
        headers.insert(USER, bytes(b"jos\xe9"));
        assert_eq!(read(&headers).expect("read").expect("user").name, "jos\u{fffd}");
    }

    #[test]
    fn modes_are_for_their_users() {
        let of_node = [(NODE_NAME.to_owned(), vec!["n".to_owned()])].into();
        let agent = UserInfo { name: "system:serviceaccount:a:b".into(), extra: of_node, ..UserInfo::default() };
        let check = |name: &str, groups: &[&str], want: &[&str]| {
            let groups = groups.iter().map(|g| (*g).to_owned()).collect();
            let wanted = UserInfo { name: name.into(), groups, ..UserInfo::default() };
            let modes: Vec<_> = MODES.iter().filter(|m| (m.applies)(&wanted, &agent)).map(|m| m.name).collect();
            assert_eq!(modes, want, "{name}");
        };
        check("system:node:n", &[], &["associated-node", "arbitrary-node"]);
        check("system:node:m", &[], &["arbitrary-node"]);
        check("system:node:m", &["g"], &[]);
        check("system:node:M", &[], &["user-info"]);
        check("system:serviceaccount:a:b", &[], &["serviceaccount"]);
        check("system:serviceaccount:a:b", &["g"], &[]);
        check("ann", &["g"], &["user-info"]);
    }

    #[test]
    fn odd_extras_are_refused() {
        let check = |key: &str, value: &str, want: bool| {
            let extra = [(key.to_owned(), vec![value.to_owned()])].into();
            assert_eq!(odd_extra(&extra).is_none(), want, "{key}={value}");
        };
        check("acme.io/a", "x", true);
        check("a", "x", false);
        check("acme.io/A", "x", false);
        check("acme.io/a", "", false);
    }
}
