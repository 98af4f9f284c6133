//! Named formats: `format.dns1123Label().validate(self)` gives what is wrong with a text.

use super::{Overload, opaque, text, url};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::time;
use crate::value::{Opaque, Value};
use base64::Engine;
use std::any::Any;
use std::borrow::Cow;

pub(super) static TABLE: &[Overload] = &[
    Overload::new(
        "validate",
        "kubernetes.NamedFormat::validate(string) -> optional(list(string))",
        Cost::Format,
        validate,
    ),
    Overload::new("format.named", "format.named(string) -> optional(kubernetes.NamedFormat)", Cost::One, named),
    Overload::new("format.dns1123Label", "format.dns1123Label() -> kubernetes.NamedFormat", Cost::One, |_| {
        get("dns1123Label")
    }),
    Overload::new("format.dns1123Subdomain", "format.dns1123Subdomain() -> kubernetes.NamedFormat", Cost::One, |_| {
        get("dns1123Subdomain")
    }),
    Overload::new("format.dns1035Label", "format.dns1035Label() -> kubernetes.NamedFormat", Cost::One, |_| {
        get("dns1035Label")
    }),
    Overload::new("format.qualifiedName", "format.qualifiedName() -> kubernetes.NamedFormat", Cost::One, |_| {
        get("qualifiedName")
    }),
    Overload::new(
        "format.dns1123LabelPrefix",
        "format.dns1123LabelPrefix() -> kubernetes.NamedFormat",
        Cost::One,
        |_| get("dns1123LabelPrefix"),
    ),
    Overload::new(
        "format.dns1123SubdomainPrefix",
        "format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat",
        Cost::One,
        |_| get("dns1123SubdomainPrefix"),
    ),
    Overload::new(
        "format.dns1035LabelPrefix",
        "format.dns1035LabelPrefix() -> kubernetes.NamedFormat",
        Cost::One,
        |_| get("dns1035LabelPrefix"),
    ),
    Overload::new("format.labelValue", "format.labelValue() -> kubernetes.NamedFormat", Cost::One, |_| {
        get("labelValue")
    }),
    Overload::new("format.uri", "format.uri() -> kubernetes.NamedFormat", Cost::One, |_| get("uri")),
    Overload::new("format.uuid", "format.uuid() -> kubernetes.NamedFormat", Cost::One, |_| get("uuid")),
    Overload::new("format.byte", "format.byte() -> kubernetes.NamedFormat", Cost::One, |_| get("byte")),
    Overload::new("format.date", "format.date() -> kubernetes.NamedFormat", Cost::One, |_| get("date")),
    Overload::new("format.datetime", "format.datetime() -> kubernetes.NamedFormat", Cost::One, |_| get("datetime")),
];

/// A format: its name, what is wrong with a text, the length of the pattern it stands for.
#[derive(Debug)]
struct Format {
    name: &'static str,
    check: fn(&str) -> Vec<String>,
    pattern: u64,
}

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", check: |t| dns1123_label(t, false), pattern: 30 },
    Format { name: "dns1123Subdomain", check: |t| dns1123_subdomain(t, false), pattern: 60 },
    Format { name: "dns1035Label", check: |t| dns1035_label(t, false), pattern: 30 },
    Format { name: "qualifiedName", check: qualified_name, pattern: 60 },
    Format { name: "dns1123LabelPrefix", check: |t| dns1123_label(t, true), pattern: 30 },
    Format { name: "dns1123SubdomainPrefix", check: |t| dns1123_subdomain(t, true), pattern: 60 },
    Format { name: "dns1035LabelPrefix", check: |t| dns1035_label(t, true), pattern: 30 },
    Format { name: "labelValue", check: label_value, pattern: 40 },
    Format { name: "uri", check: |t| url::check_request_uri(t).err().into_iter().collect(), pattern: 1103 },
    Format { name: "uuid", check: |t| unless(is_uuid(t), "does not match the UUID format"), pattern: 82 },
    Format { name: "byte", check: |t| unless(is_base64(t), "invalid base64"), pattern: 84 },
    Format { name: "date", check: |t| unless(time::parse_date(t).is_ok(), "invalid date"), pattern: 76 },
    Format { name: "datetime", check: |t| unless(is_date_time(t), "invalid datetime"), pattern: 76 },
];

#[derive(Debug)]
struct Named(&'static Format);

impl Opaque for Named {
    fn type_name(&self) -> &'static str {
        "kubernetes.NamedFormat"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.0.name == self.0.name)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    /// The length of the pattern, by which `validate` is charged.
    fn size(&self) -> u64 {
        self.0.pattern
    }
}

fn find<'a>(name: &str) -> Option<Value<'a>> {
    FORMATS.iter().find(|format| format.name == name).map(|format| Value::opaque(Named(format)))
}

fn get<'a>(name: &str) -> Result<Value<'a>, EvalError> {
    find(name).ok_or_else(EvalError::no_such_overload)
}

fn named<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::optional(find(text(args, 0)?)))
}

fn validate<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let wrong = (opaque::<Named>(args, 0)?.0.check)(text(args, 1)?);
    let list = (!wrong.is_empty()).then(|| Value::list(wrong.into_iter().map(Value::text).collect()));
    Ok(Value::optional(list))
}

fn unless(valid: bool, message: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![message.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.split_at_checked(length) {
            Some((group, after)) if group.bytes().all(|b| b.is_ascii_hexdigit()) => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_date_time(text: &str) -> bool {
    time::parse_timestamp(&text.to_ascii_uppercase()).is_some()
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(text: &str, max: usize) -> Vec<String> {
    unless(text.len() <= max, &format!("must be no more than {max} characters"))
}

/// A prefix may end with `-`: its last two characters are taken for one that is right.
fn masked(text: &str, prefix: bool) -> Cow<'_, str> {
    match text.strip_suffix('-').filter(|rest| prefix && !rest.is_empty()) {
        Some(rest) => format!("{}a", rest.char_indices().next_back().map_or("", |(at, _)| &rest[..at])).into(),
        None => text.into(),
    }
}

fn is_framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if edge(*first) && edge(*last))
        && bytes.iter().all(|b| edge(*b) || inner(*b))
}

fn is_label(text: &str) -> bool {
    is_framed(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit(), |b| b == b'-')
}

fn is_name(text: &str) -> bool {
    is_framed(text, |b| b.is_ascii_alphanumeric(), |b| b"-_.".contains(&b))
}

fn dns1123_label(text: &str, prefix: bool) -> Vec<String> {
    let mut out = too_long(text, 63);
    let name = masked(text, prefix);
    if !is_label(&name) {
        let dotted = !name.is_empty() && name.split('.').all(is_label);
        out.push(if dotted { "must not contain dots".into() } else { LABEL.into() });
    }
    out
}

fn dns1123_subdomain(text: &str, prefix: bool) -> Vec<String> {
    let mut out = too_long(text, 253);
    out.extend(unless(masked(text, prefix).split('.').all(is_label), SUBDOMAIN));
    out
}

fn dns1035_label(text: &str, prefix: bool) -> Vec<String> {
    let mut out = too_long(text, 63);
    let name = masked(text, prefix);
    out.extend(unless(is_label(&name) && name.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035));
    out
}

fn qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            out.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            out.extend(dns1123_subdomain(prefix, false).into_iter().map(|why| format!("prefix part {why}")));
            name
        }
    };
    match name.is_empty() {
        true => out.push("name part must be non-empty".to_owned()),
        false => out.extend(unless(name.len() <= 63, "name part must be no more than 63 characters")),
    }
    out.extend(unless(is_name(name), &format!("name part {QUALIFIED}")));
    out
}

fn label_value(text: &str) -> Vec<String> {
    let mut out = too_long(text, 63);
    out.extend(unless(text.is_empty() || is_name(text), LABEL_VALUE));
    out
}
