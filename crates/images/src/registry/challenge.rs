//! `WWW-Authenticate` (RFC 9110, section 11.6.1): what a registry wants to see.

use std::collections::BTreeMap;

/// One way to authenticate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Names in lower case.
    pub parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads one header value, which may hold several challenges; what cannot be read is left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header;
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = read_value(value.trim_start_matches([' ', '\t']));
                if let Some(challenge) = challenges.last_mut() {
                    challenge.parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = after;
            }
            None => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
                rest = after;
            }
        }
    }
}

/// A token or quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expect: &[(&str, &[(&str, &str)])]) {
        let expect: Vec<_> = expect
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).to_owned(),
                parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            })
            .collect();
        assert_eq!(parse(header), expect, "{header}");
    }

    #[test]
    fn reads_challenges() {
        check("", &[]);
        check(" , ,", &[]);
        check("=x", &[]);
        check("realm=\"stray\"", &[]);
        check("Basic realm=\"Registry\"", &[("basic", &[("realm", "Registry")])]);
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:a/b:pull,push"),
                ],
            )],
        );
        check(
            "BEARER Realm = x , error=insufficient_scope",
            &[("bearer", &[("realm", "x"), ("error", "insufficient_scope")])],
        );
        check(
            r#"Basic realm="a\"b", Bearer realm="c""#,
            &[("basic", &[("realm", "a\"b")]), ("bearer", &[("realm", "c")])],
        );
        check("Negotiate, Basic realm=x", &[("negotiate", &[]), ("basic", &[("realm", "x")])]);
        check("Bearer realm=\"open", &[("bearer", &[("realm", "open")])]);
        check("Bearer realm=\"end\\", &[("bearer", &[("realm", "end")])]);
    }
}
