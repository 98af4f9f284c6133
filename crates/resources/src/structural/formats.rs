//! The formats of strings that are checked; others are accepted as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// A format: its name without dashes, and its check.
struct Format(&'static str, fn(&str) -> bool);

/// Every format that is checked, and those that upstream knows and accepts anything for.
const FORMATS: [Format; 26] = [
    Format("bsonobjectid", |text| text.len() == 24 && is_hex(text)),
    Format("byte", |text| !text.is_empty() && STANDARD.decode(text).is_ok()),
    Format("cidr", cidr),
    Format("creditcard", credit_card),
    Format("date", date),
    Format("datetime", date_time),
    Format("duration", duration),
    Format("email", email),
    Format("hexcolor", hex_color),
    Format("hostname", hostname),
    Format("ipv4", ipv4),
    Format("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    Format("isbn", |text| isbn10(text) || isbn13(text)),
    Format("isbn10", isbn10),
    Format("isbn13", isbn13),
    Format("k8slongname", |text| text.len() <= 253 && text.split('.').all(name)),
    Format("k8sshortname", |text| text.len() <= 63 && name(text)),
    Format("mac", mac),
    Format("password", |_| true),
    Format("rgbcolor", |text| RGB.is_match(text)),
    Format("ssn", |text| text.len() == 11 && SSN.is_match(text)),
    Format("uri", uri),
    Format("uuid", |text| uuid(text, None, false)),
    Format("uuid3", |text| uuid(text, Some('3'), false)),
    Format("uuid4", |text| uuid(text, Some('4'), true)),
    Format("uuid5", |text| uuid(text, Some('5'), true)),
];

static RGB: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*";
    constant(&format!(r"^rgb\({part},{part},{part}\)$"))
});
static SSN: LazyLock<Regex> = LazyLock::new(|| constant(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"));
static CARD: LazyLock<Regex> = LazyLock::new(|| {
    constant(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
    )
});
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    constant(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
    )
});
static DATE: LazyLock<Regex> = LazyLock::new(|| constant(r"^\d{4}-\d{2}-\d{2}$"));
static TIME: LazyLock<Regex> =
    LazyLock::new(|| constant(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"));
static SPAN: LazyLock<Regex> = LazyLock::new(|| constant(r"(\d+)\s*([A-Za-zµ]+)"));

/// Compiles a pattern of this file: each is used by a test.
fn constant(pattern: &str) -> Regex {
    #[allow(clippy::expect_used)]
    Regex::new(pattern).expect("the patterns of this file are correct")
}

fn find(format: &str) -> Option<&'static Format> {
    let plain = format.replace('-', "");
    FORMATS.iter().find(|f| f.0 == plain)
}

/// Whether a format of strings is known.
pub(super) fn is_known(format: &str) -> bool {
    find(format).is_some()
}

/// Whether a string has a format; any string has one that is not known.
pub(super) fn fits(format: &str, text: &str) -> bool {
    format.is_empty() || find(format).is_none_or(|f| f.1(text))
}

fn date(text: &str) -> bool {
    DATE.is_match(text) && text.parse::<jiff::civil::Date>().is_ok()
}

fn date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((day, time)) = lower.split_once('t') else { return false };
    let Some(found) = TIME.captures(time.split('t').next().unwrap_or("")) else { return false };
    date(day) && &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59"
}

/// As Go parses durations, or as Scala writes them (`3 minutes`).
fn duration(text: &str) -> bool {
    const UNITS: [(&[&str], &str); 8] = [
        (&["ns"], "nano"),
        (&["us", "µs"], "micro"),
        (&["ms"], "milli"),
        (&["s"], "second"),
        (&["m"], "minute"),
        (&["h"], "hour"),
        (&["d"], "day"),
        (&["w"], "week"),
    ];
    let scala = || {
        SPAN.captures_iter(text).any(|found| {
            let unit = found[2].to_lowercase();
            UNITS.iter().any(|(short, long)| short.contains(&unit.as_str()) || unit.starts_with(long))
        })
    };
    go_duration(text) || scala()
}

fn go_duration(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let number = rest[..digits].parse::<f64>().is_ok();
        let Some(unit) = units.iter().find(|u| rest[digits..].starts_with(**u)).filter(|_| number) else {
            return false;
        };
        rest = &rest[digits + unit.len()..];
    }
    !text.is_empty()
}

/// An address, also with a name before it (`A <a@b.c>`).
fn email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>').and_then(|t| t.split_once('<')) {
        Some((_, address)) => address,
        None => text,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    let dots = |part: &str| !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    address.rsplit_once('@').is_some_and(|(user, host)| {
        let quoted = user.len() > 1 && user.starts_with('"') && user.ends_with('"');
        let literal = host.starts_with('[') && host.ends_with(']');
        !user.is_empty()
            && !host.is_empty()
            && (quoted || (user.chars().all(plain) && dots(user)))
            && (literal || (host.chars().all(plain) && dots(host)))
    })
}

fn hostname(text: &str) -> bool {
    HOSTNAME.is_match(text) && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63)
}

/// An address in four parts, which may begin with zeros.
fn ipv4(text: &str) -> bool {
    let part = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u8>().is_ok();
    text.split('.').count() == 4 && text.split('.').all(part)
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u8>() else { return false };
    (address.parse::<Ipv4Addr>().is_ok() && bits <= 32) || (address.parse::<Ipv6Addr>().is_ok() && bits <= 128)
}

fn mac(text: &str) -> bool {
    let parts = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|p| p.len() == width && is_hex(p))
    };
    parts(':', 2, &[6, 8, 20]) || parts('-', 2, &[6, 8, 20]) || parts('.', 4, &[3, 4, 10])
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn uuid(text: &str, version: Option<char>, variant: bool) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let dashes = text.match_indices('-').all(|(at, _)| {
        let before = text[..at].chars().filter(|c| *c != '-').count();
        matches!(before, 8 | 12 | 16 | 20) && !text[at + 1..].starts_with('-')
    });
    let at = |place: usize| plain.chars().nth(place).unwrap_or('x');
    dashes
        && plain.len() == 32
        && is_hex(&plain)
        && version.is_none_or(|v| at(12) == v)
        && (!variant || matches!(at(16).to_ascii_lowercase(), '8' | '9' | 'a' | 'b'))
}

/// As a request names it: absolute, or a path.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_ascii_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

fn hex_color(text: &str) -> bool {
    let text = text.strip_prefix('#').unwrap_or(text);
    matches!(text.len(), 3 | 6) && is_hex(text)
}

fn name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty() && text.bytes().all(|b| inner(b) || b == b'-') && !text.starts_with('-') && !text.ends_with('-')
}

fn isbn_digits(text: &str) -> Vec<char> {
    text.chars().filter(|c| !matches!(c, ' ' | '-' | '\n' | '\r' | '\t')).collect()
}

fn isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    let value = |(at, c): (usize, &char)| match c {
        'X' | 'x' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = digits.iter().enumerate().map(value).collect();
    values.is_some_and(|v| v.len() == 10 && v.iter().zip(1..).map(|(d, n)| d * n).sum::<u32>() % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    let values: Option<Vec<u32>> = isbn_digits(text).iter().map(|c| c.to_digit(10)).collect();
    let sum = |v: &[u32]| v.iter().enumerate().map(|(at, d)| if at % 2 == 0 { *d } else { d * 3 }).sum::<u32>();
    values.is_some_and(|v| v.len() == 13 && matches!((v[0], v[1], v[2]), (9, 7, 8 | 9)) && sum(&v) % 10 == 0)
}

fn credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let luhn = digits.bytes().rev().enumerate().map(|(at, b)| {
        let digit = u32::from(b - b'0');
        match at % 2 {
            0 => digit,
            _ if digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        }
    });
    CARD.is_match(&digits) && luhn.sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_checked() {
        for (format, text, want) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", true),
            ("byte", "aGk=", true),
            ("byte", "!!", false),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0/33", false),
            ("creditcard", "4111 1111 1111 1111", true),
            ("creditcard", "4111 1111 1111 1112", false),
            ("date", "2020-01-02", true),
            ("date", "2020-13-02", false),
            ("date-time", "2020-01-02T03:04:05Z", true),
            ("date-time", "2020-01-02t03:04:05.123+01:00", true),
            ("date-time", "2020-01-02T24:04:05Z", false),
            ("date-time", "2020-01-02", false),
            ("duration", "1h30m", true),
            ("duration", "3 minutes", true),
            ("duration", "1x", false),
            ("email", "a@b.c", true),
            ("email", "Ann <a@b.c>", true),
            ("email", "a", false),
            ("hexcolor", "#fff", true),
            ("hostname", "a.example.com", true),
            ("hostname", "a_b", false),
            ("ipv4", "1.2.3", false),
            ("ipv4", "01.2.3.4", true),
            ("byte", "", false),
            ("ipv6", "::1", true),
            ("isbn", "0321751043", true),
            ("isbn13", "978-0321751041", true),
            ("isbn10", "0321751044", false),
            ("k8s-short-name", "a-b", true),
            ("k8s-short-name", "A", false),
            ("k8s-long-name", "a.b-c", true),
            ("mac", "01:23:45:67:89:ab", true),
            ("rgbcolor", "rgb(1, 2,255)", true),
            ("rgbcolor", "rgb(1,2)", false),
            ("ssn", "123-45-6789", true),
            ("uri", "https://a/b", true),
            ("uri", "a b", false),
            ("uuid", "01234567-89ab-cdef-0123-456789abcdef", true),
            ("uuid4", "01234567-89ab-4def-8123-456789abcdef", true),
            ("uuid4", "01234567-89ab-4def-0123-456789abcdef", false),
            ("unknown", "anything", true),
        ] {
            assert_eq!(fits(format, text), want, "{format} {text}");
        }
    }
}
