//! Users and groups of an image: `/etc/passwd` and `/etc/group`, read with bounds.

use crate::error::{Error, Result};
use crate::path::Root;
use serde::{Deserialize, Serialize};

/// Largest user database read.
const MAX_DATABASE: u64 = 4 << 20;

/// Largest id, as in pods' security contexts. Above, 2³²−1 means "leave it" to the kernel: the process would stay root.
const MAX_ID: u32 = i32::MAX as u32;

/// Who a process shall be, before the image's databases are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// `name`, `uid`, `name:group` or `uid:gid`; empty: root.
    pub user: String,
    /// Group instead of the user's own.
    pub gid: Option<u32>,
    /// Groups besides.
    pub groups: Vec<u32>,
    /// Only `groups`, not those of the image's `/etc/group`.
    pub strict: bool,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups, the group itself among them.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

impl UserSpec {
    /// Looks the user up in the databases of a root.
    pub fn resolve(&self, root: &Root) -> Result<Identity> {
        let passwd = text(root, "/etc/passwd")?;
        let group = text(root, "/etc/group")?;
        self.resolve_in(&passwd, &group)
    }

    fn resolve_in(&self, passwd: &str, group: &str) -> Result<Identity> {
        let (user, named_group) = match self.user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (self.user.as_str(), None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = passwd_entry(passwd, user);
        let uid = match (&entry, user.parse::<u32>()) {
            (_, Ok(uid)) => uid,
            (Some(entry), Err(_)) => entry.uid,
            (None, Err(_)) => {
                return Err(Error::Invalid(format!("unable to find user {user}: no matching entries in passwd file")));
            }
        };
        let gid = match (self.gid, named_group) {
            (Some(gid), _) => gid,
            (None, Some(name)) => group_id(group, name)?,
            (None, None) => entry.as_ref().map_or(0, |e| e.gid),
        };
        let mut groups = vec![gid];
        groups.extend(&self.groups);
        if let (false, Some(entry)) = (self.strict, &entry) {
            groups.extend(groups_of(group, &entry.name));
        }
        let mut seen = std::collections::HashSet::new();
        groups.retain(|g| seen.insert(*g));
        if let Some(id) = groups.iter().chain([&uid]).find(|id| **id > MAX_ID) {
            return Err(Error::Invalid(format!("user or group id {id} is not in the range 0 to {MAX_ID}")));
        }
        let home = entry.map(|e| e.home).filter(|h| !h.is_empty()).unwrap_or_else(|| "/".into());
        Ok(Identity { uid, gid, groups, home })
    }
}

fn text(root: &Root, path: &str) -> Result<String> {
    Ok(root.read(path, MAX_DATABASE)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// The entry of a name or, failing that, of a number.
fn passwd_entry(passwd: &str, user: &str) -> Option<Entry> {
    let entries = || passwd.lines().filter_map(parse_entry);
    let number = user.parse::<u32>().ok();
    entries().find(|e| e.name == user).or_else(|| entries().find(|e| Some(e.uid) == number))
}

fn parse_entry(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
    let home = rest.get(1).copied().unwrap_or_default();
    Some(Entry { name: name.to_string(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

fn group_id(group: &str, name: &str) -> Result<u32> {
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    by_name
        .or_else(|| name.parse().ok())
        .ok_or_else(|| Error::Invalid(format!("unable to find group {name}: no matching entries in group file")))
}

fn groups_of<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else { return None };
        members.split(',').any(|m| m == user).then(|| gid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:web:/srv:/bin/sh\n1000:x:7:7::/n:/x\n";
    const GROUP: &str = "root:x:0:\nwww:x:50:web,root\nextra:x:60:web\nbad:x:x:web\n";

    fn check(spec: UserSpec, expect: std::result::Result<(u32, u32, &[u32], &str), &str>) {
        match (spec.resolve_in(PASSWD, GROUP), expect) {
            (Ok(id), Ok((uid, gid, groups, home))) => {
                assert_eq!(
                    (id.uid, id.gid, id.groups.as_slice(), id.home.as_str()),
                    (uid, gid, groups, home),
                    "{spec:?}"
                );
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
            (got, expect) => panic!("{spec:?}: got {got:?}, expected {expect:?}"),
        }
    }

    fn user(user: &str) -> UserSpec {
        UserSpec { user: user.into(), ..UserSpec::default() }
    }

    #[test]
    fn lookups() {
        check(user(""), Ok((0, 0, &[0, 50], "/root")));
        check(user("web"), Ok((33, 34, &[34, 50, 60], "/srv")));
        check(user("33"), Ok((33, 34, &[34, 50, 60], "/srv")));
        check(user("4711"), Ok((4711, 0, &[0], "/")));
        check(user("web:www"), Ok((33, 50, &[50, 60], "/srv")));
        check(user("4711:4712"), Ok((4711, 4712, &[4712], "/")));
        check(UserSpec { gid: Some(9), groups: vec![8, 9], ..user("web") }, Ok((33, 9, &[9, 8, 50, 60], "/srv")));
        check(UserSpec { strict: true, groups: vec![8], ..user("web") }, Ok((33, 34, &[34, 8], "/srv")));
        check(user("2147483647"), Ok((2_147_483_647, 0, &[0], "/")));
        check(user("4294967295"), Err("user or group id 4294967295 is not in the range 0 to 2147483647"));
        check(user("33:4294967295"), Err("user or group id 4294967295 is not in the range 0 to 2147483647"));
        check(user("nobody"), Err("unable to find user nobody: no matching entries in passwd file"));
        check(user("web:none"), Err("unable to find group none: no matching entries in group file"));
    }
}
