//! Tokens of a file: `token,user,uid,"group1,group2"` on each line.

use super::{AUTHENTICATED, UserInfo};
use std::collections::BTreeMap;
use std::path::Path;

/// The users of a file by their tokens' digests, so that looking one up tells nothing by its time.
#[derive(Default)]
pub struct TokenFile(BTreeMap<String, UserInfo>);

impl TokenFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("--token-auth-file {}: {e}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("--token-auth-file {}: {why}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fields = fields(line);
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                let (at, found) = (at + 1, fields.len());
                return Err(format!("line {at}: at least 3 fields (token, user name, user uid), found {found}"));
            };
            if token.is_empty() {
                tracing::warn!(line = at + 1, "a line of the token file has an empty token and is left out");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',').filter(|g| !g.is_empty());
            let mut user = UserInfo { name: name.clone(), uid: uid.clone(), ..UserInfo::default() };
            user.groups = groups.map(str::to_owned).chain([AUTHENTICATED.to_owned()]).collect();
            users.insert(pki::sha256_hex(token.as_bytes()), user);
        }
        Ok(Self(users))
    }

    /// The user of a token.
    pub fn user(&self, token: &str) -> Option<UserInfo> {
        if self.0.is_empty() { None } else { self.0.get(&pki::sha256_hex(token.as_bytes())).cloned() }
    }
}

/// The fields of a line of comma-separated values; quotes keep commas together.
fn fields(line: &str) -> Vec<String> {
    let (mut out, mut quoted) = (vec![String::new()], false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = out.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                out[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            ' ' if out[last].is_empty() && !quoted => {}
            c => out[last].push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let file = TokenFile::parse("t1,ann,1,\"a,b\"\n\nt2,bob,2\n").expect("file");
        let user = file.user("t1").expect("user");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "1"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(file.user("t2").map(|u| u.groups.len()), Some(1));
        assert_eq!(file.user("t3"), None);
        assert!(TokenFile::parse("t,a").is_err());
    }
}
