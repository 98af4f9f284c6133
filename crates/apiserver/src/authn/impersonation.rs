//! Impersonation: acting as another user, for those who may.

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo, service_account};
use crate::authz::{Attributes, authorize};
use crate::server::ApiServer;
use api::Status;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::sync::Arc;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user a request asks to act as; the user itself when it does not.
pub async fn impersonate(
    server: &ApiServer,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, Status> {
    let Some(wanted) = read(headers)? else { return Ok(user) };
    for attributes in required(&user, &wanted) {
        authorize(server, &attributes).await?;
    }
    Ok(Arc::new(complete(wanted)))
}

fn read(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let groups = headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().push(value.to_owned());
    }
    let wanted = UserInfo { name: text(USER), uid: text(UID), groups, extra };
    match () {
        () if !wanted.name.is_empty() => Ok(Some(wanted)),
        () if wanted == UserInfo::default() => Ok(None),
        () => Err(Status::internal("requested impersonation without impersonating a user")),
    }
}

/// What the user must be allowed to impersonate, one by one.
fn required<'a>(user: &'a UserInfo, wanted: &'a UserInfo) -> Vec<Attributes<'a>> {
    let of = |group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str, name: &'a str| Attributes {
        user,
        verb: "impersonate",
        is_resource: true,
        group,
        version: if group.is_empty() { "" } else { "v1" },
        namespace,
        resource,
        subresource,
        name,
        path: "",
    };
    let mut out = vec![match service_account_of(&wanted.name) {
        Some((namespace, name)) => of("", "serviceaccounts", "", namespace, name),
        None => of("", "users", "", "", &wanted.name),
    }];
    out.extend(wanted.groups.iter().map(|g| of("", "groups", "", "", g)));
    let extra = wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |v| (key, v)));
    out.extend(extra.map(|(key, value)| of("authentication.k8s.io", "userextras", key, "", value)));
    if !wanted.uid.is_empty() {
        out.push(of("authentication.k8s.io", "uids", "", "", &wanted.uid));
    }
    out
}

fn service_account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':').filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
}

fn complete(mut wanted: UserInfo) -> UserInfo {
    if let Some((namespace, _)) = service_account_of(&wanted.name)
        && wanted.groups.is_empty()
    {
        wanted.groups = service_account::groups(namespace);
    }
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
    use super::*;

    #[test]
    fn headers_are_read_and_completed() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), Ok(None));
        headers.insert("impersonate-extra-scopes%2fa", "x".parse().expect("value"));
        assert_eq!(read(&headers).map_err(|e| e.code), Err(500));
        headers.insert(USER, "system:serviceaccount:ns:sa".parse().expect("value"));
        let user = complete(read(&headers).expect("read").expect("user"));
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        assert_eq!(user.extra.get("scopes/a"), Some(&vec!["x".to_owned()]));
    }
}
