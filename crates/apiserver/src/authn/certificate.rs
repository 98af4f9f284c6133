//! Users of client certificates: the common name is the user, the organizations are the groups.

use super::{AUTHENTICATED, CREDENTIAL_ID, UserInfo};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The user of a certificate that TLS has verified; `None` when it names none.
pub fn user(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?.to_owned();
    let organizations = certificate.subject().iter_organization().filter_map(|o| o.as_str().ok());
    let mut groups: Vec<String> = organizations.map(str::to_owned).collect();
    groups.push(AUTHENTICATED.into());
    let digest = pki::sha256_hex(der);
    let extra = [(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={digest}")])].into();
    (!name.is_empty()).then_some(UserInfo { name, groups, extra, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_become_users() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = pki::Ca::load_or_create(dir.path()).expect("ca");
        let identity = ca.issue_client("system:node:a", &["system:nodes"]).expect("issue");
        let user = user(&identity.certs().expect("certs")[0]).expect("user");
        assert_eq!((user.name.as_str(), user.node_name()), ("system:node:a", Some("a")));
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert_eq!(super::user(b"junk"), None);
    }
}
