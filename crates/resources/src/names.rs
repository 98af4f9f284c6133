//! Name rules (RFC 1123, RFC 1035, qualified names), with upstream's texts.

mod addresses;

pub use addresses::*;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_FMT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const UNDERSCORE_FMT: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const UNDERSCORE_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
const WILDCARD_MSG: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const DNS1035_MSG: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MSG: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_FMT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const VALUE_MSG: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const CONFIG_KEY_MSG: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const ENV_MSG: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HEADER_MSG: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
const PERCENT_MSG: &str = "a valid percent string must be a numeric string followed by an ending '%'";
const C_IDENTIFIER_MSG: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";

/// Names of one part, at most 63 long.
pub const LABEL_MAX: usize = 63;
/// Names of several parts, at most 253 long.
pub const SUBDOMAIN_MAX: usize = 253;

/// A rule for names: texts of what is wrong.
pub type NameRule = fn(&str, bool) -> Vec<String>;
/// A rule for whole texts: texts of what is wrong.
pub type TextRule = fn(&str) -> Vec<String>;

/// A whole DNS-1123 subdomain.
pub fn subdomain(name: &str) -> Vec<String> {
    dns1123_subdomain(name, false)
}

/// The beginning of a DNS-1123 subdomain.
pub fn subdomain_prefix(name: &str) -> Vec<String> {
    dns1123_subdomain(name, true)
}

/// A whole DNS-1123 label.
pub fn label(name: &str) -> Vec<String> {
    dns1123_label(name, false)
}

/// A whole path segment.
pub fn segment(name: &str) -> Vec<String> {
    path_segment(name, false)
}

/// As [`dns1123_subdomain`], in the words of the kinds whose validation is declared with their types.
pub fn long_name(name: &str, prefix: bool) -> Vec<String> {
    dns1123_subdomain(name, prefix).into_iter().map(|why| why.replace("253 characters", "253 bytes")).collect()
}

/// DNS-1123 subdomain; a prefix may end with `-`.
pub fn dns1123_subdomain(name: &str, prefix: bool) -> Vec<String> {
    let mut out = too_long(name, SUBDOMAIN_MAX);
    if !is_subdomain(&masked(name, prefix)) {
        out.push(regex_text(SUBDOMAIN_MSG, SUBDOMAIN_FMT, &["example.com"]));
    }
    out
}

/// DNS-1123 label; a prefix may end with `-`.
pub fn dns1123_label(name: &str, prefix: bool) -> Vec<String> {
    let mut out = too_long(name, LABEL_MAX);
    let name = masked(name, prefix);
    if !is_label(&name) {
        out.push(match is_subdomain(&name) {
            // the characters are right, only the dots are not
            true => "must not contain dots".into(),
            false => regex_text(LABEL_MSG, LABEL_FMT, &["my-name", "123-abc"]),
        });
    }
    out
}

/// DNS-1035 label; a prefix may end with `-`.
pub fn dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    let mut out = too_long(name, LABEL_MAX);
    let name = masked(name, prefix);
    if !is_label(&name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        out.push(regex_text(DNS1035_MSG, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    out
}

/// DNS-1123 subdomain whose parts may hold `_` (search domains).
pub fn subdomain_with_underscore(name: &str) -> Vec<String> {
    let mut out = too_long(name, SUBDOMAIN_MAX);
    let part = |p: &str| {
        let p = p.strip_prefix('_').unwrap_or(p);
        framed(p, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == b'-' || c == b'_')
    };
    if !name.split('.').all(part) {
        out.push(regex_text(UNDERSCORE_MSG, UNDERSCORE_FMT, &["example.com"]));
    }
    out
}

/// `*.` followed by a DNS-1123 subdomain.
pub fn wildcard_subdomain(name: &str) -> Vec<String> {
    let mut out = too_long(name, SUBDOMAIN_MAX);
    if !name.strip_prefix("*.").is_some_and(is_subdomain) {
        out.push(regex_text(WILDCARD_MSG, &format!(r"\*\.{SUBDOMAIN_FMT}"), &["*.example.com"]));
    }
    out
}

/// A path segment: not `.` or `..`, no `/` or `%`.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `[prefix/]name` as of annotation keys, finalizers and resource names: the rule and texts of label keys.
pub fn qualified_name(text: &str) -> Vec<String> {
    label_key(text)
}

/// The key of a label.
pub fn label_key(text: &str) -> Vec<String> {
    let examples = ["MyName", "my.name", "123-abc"];
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            let text = regex_text(QUALIFIED_MSG, QUALIFIED_FMT, &examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".into());
            } else {
                let errors = dns1123_subdomain(prefix, false).into_iter();
                out.extend(errors.map(|e| format!("prefix part {e}")));
            }
            name
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        out.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_qualified_part(name) {
        out.push(format!("name part {}", regex_text(QUALIFIED_MSG, QUALIFIED_FMT, &examples)));
    }
    out
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        out.push(regex_text(VALUE_MSG, VALUE_FMT, &["MyValue", "my_value", "12345"]));
    }
    out
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut out = too_long(text, SUBDOMAIN_MAX);
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c)) {
        let examples = ["key.name", "KEY_NAME", "key-name"];
        out.push(regex_text(CONFIG_KEY_MSG, "[-._a-zA-Z0-9]+", &examples));
    }
    out.extend(no_dots(text));
    out
}

fn no_dots(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        _ if text.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// The name of an environment variable.
pub fn env_var_name(text: &str) -> Vec<String> {
    let fine = |c: char| (' '..='~').contains(&c) && c != '=';
    match text.is_empty() {
        true => vec!["environment variable name must be non-empty".into()],
        false if text.chars().all(fine) => Vec::new(),
        false => vec![ENV_MSG.into()],
    }
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    match !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        true => Vec::new(),
        false => vec![regex_text(HEADER_MSG, "[-A-Za-z0-9]+", &["X-Header-Name"])],
    }
}

/// A percentage, `25%`.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    match !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        true => Vec::new(),
        false => vec![regex_text(PERCENT_MSG, "[0-9]+%", &["1%", "93%"])],
    }
}

/// A C identifier.
pub fn c_identifier(text: &str) -> Vec<String> {
    let fine = text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    match fine && !text.is_empty() && !text.as_bytes()[0].is_ascii_digit() {
        true => Vec::new(),
        false => vec![regex_text(C_IDENTIFIER_MSG, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])],
    }
}

/// The name of a port (IANA service name).
pub fn port_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut push = |bad: bool, text: &str| {
        if bad {
            out.push(text.to_owned());
        }
    };
    push(text.len() > 15, "must be no more than 15 characters");
    let fine = !text.is_empty() && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    push(!fine, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    push(!text.bytes().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    push(text.contains("--"), "must not contain consecutive hyphens");
    push(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    out
}

/// A port number.
pub fn port_number(port: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

/// What is wrong with a name that has at least two labels; the error is about a part of it.
pub fn fully_qualified(name: &str) -> Option<(String, String)> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let wrong = subdomain(name);
    if !wrong.is_empty() {
        return Some((name.to_owned(), wrong.join(",")));
    }
    if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return Some((name.to_owned(), why.into()));
    }
    let wrong = |part: &str| (part.to_owned(), label(part).join(","));
    name.split('.').map(wrong).find(|(_, why)| !why.is_empty())
}

/// Whether a name is a DNS-1123 label.
pub fn is_label(name: &str) -> bool {
    framed(name, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == b'-')
}

/// Whether a name is a DNS-1123 subdomain.
pub fn is_subdomain(name: &str) -> bool {
    name.split('.').all(is_label)
}

fn is_qualified_part(name: &str) -> bool {
    framed(name, |c| c.is_ascii_alphanumeric(), |c| b"-_.".contains(&c))
}

/// Whether all bytes are of `edge` or `inner`, and the first and last of `edge`.
fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|c| edge(*c) || inner(*c)),
    }
}

/// A prefix that ends with `-` is checked as if a character followed.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(head) if prefix && !head.is_empty() => format!("{head}a").into(),
        _ => name.into(),
    }
}

fn too_long(name: &str, max: usize) -> Vec<String> {
    if name.len() > max { vec![format!("must be no more than {max} characters")] } else { Vec::new() }
}

/// The text of a name that does not match a regular expression.
pub fn regex_text(message: &str, fmt: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{fmt}')");
    }
    // upstream leaves a comma after every example
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{fmt}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused() {
        let check = |rule: NameRule, name: &str, prefix, errors: usize| {
            assert_eq!(rule(name, prefix).len(), errors, "{name}: {:?}", rule(name, prefix));
        };
        check(dns1123_subdomain, "a.b-c.d", false, 0);
        check(dns1123_subdomain, "a-", true, 0);
        check(dns1123_subdomain, "a-", false, 1);
        check(dns1123_subdomain, "a..b", false, 1);
        check(dns1123_subdomain, &"A".repeat(300), false, 2);
        check(dns1123_label, "1a", false, 0);
        check(dns1035_label, "1a", false, 1);
        check(path_segment, "a/b%", false, 2);
    }

    #[test]
    fn texts_are_upstreams() {
        let check = |got: Vec<String>, want: &[&str]| assert_eq!(got, want);
        check(dns1123_label("a.b", false), &["must not contain dots"]);
        check(
            dns1123_label("Bad", false),
            &[
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
        check(qualified_name("/x"), &["prefix part must be non-empty"]);
        check(
            port_name("--"),
            &[
                "must contain at least one letter (a-z)",
                "must not contain consecutive hyphens",
                "must not begin or end with a hyphen",
            ],
        );
        check(label_value("ok"), &[]);
        check(config_map_key(".."), &["must not be '..'"]);
    }

    #[test]
    fn full_names_have_two_labels() {
        assert_eq!(fully_qualified("a.b."), None);
        assert!(fully_qualified("a").is_some_and(|(of, why)| of == "a" && why.starts_with("should be")));
    }
}
