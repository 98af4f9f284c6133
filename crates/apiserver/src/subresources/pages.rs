//! The links of an HTML page: attributes of start tags that hold URLs. Everything else of the page stays byte for byte.
//!
//! Comments, declarations and the text of scripts and styles are stepped over; a page that ends in the middle of a tag
//! keeps that end as it is.

/// Elements and those of their attributes that hold one URL.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose text has no tags in it.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// The page with its links as `link` has them; where that says none, they stay.
pub fn rewrite(page: &[u8], link: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(start) = rest.iter().position(|b| *b == b'<') {
        out.extend_from_slice(&rest[..start]);
        rest = &rest[start..];
        let is_tag = rest.get(1).is_some_and(u8::is_ascii_alphabetic);
        let step = if is_tag { tag(rest, &link, &mut out) } else { skipped(rest) };
        if !step.written {
            out.extend_from_slice(&rest[..step.bytes]);
        }
        rest = &rest[step.bytes..];
    }
    out.extend_from_slice(rest);
    out
}

/// How much of the page was read, and whether it has been written.
struct Step {
    bytes: usize,
    written: bool,
}

fn skipped(rest: &[u8]) -> Step {
    let comment = rest.starts_with(b"<!--").then(|| find(&rest[4..], b"-->").map_or(rest.len(), |at| at + 7));
    Step { bytes: comment.unwrap_or(1), written: false }
}

/// Writes one start tag, and the text after it where that is raw.
fn tag(rest: &[u8], link: &impl Fn(&str) -> Option<String>, out: &mut Vec<u8>) -> Step {
    let named = 1 + rest[1..].iter().take_while(|b| !is_space(**b) && !b"/>".contains(b)).count();
    let name = String::from_utf8_lossy(&rest[1..named]).to_ascii_lowercase();
    let attributes = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, attributes)| attributes);
    let mut at = named;
    let mut written = Vec::from(&rest[..named]);
    loop {
        let gap = rest[at..].iter().take_while(|b| is_space(**b) || **b == b'/').count();
        written.extend_from_slice(&rest[at..at + gap]);
        at += gap;
        match rest.get(at) {
            None => return Step { bytes: rest.len(), written: false },
            Some(b'>') => break,
            Some(_) => {}
        }
        let attribute = Attribute::read(&rest[at..]);
        let value = std::str::from_utf8(&rest[at..][attribute.value.clone()]).unwrap_or("");
        let key = String::from_utf8_lossy(&rest[at..at + attribute.name]).to_ascii_lowercase();
        let new = attributes.contains(&key.as_str()).then(|| link(&value.replace("&amp;", "&"))).flatten();
        match new {
            Some(new) => {
                written.extend_from_slice(&rest[at..at + attribute.value.start]);
                written.extend_from_slice(escape(&new).as_bytes());
                written.extend_from_slice(&rest[at + attribute.value.end..at + attribute.bytes]);
            }
            None => written.extend_from_slice(&rest[at..at + attribute.bytes]),
        }
        at += attribute.bytes;
    }
    let text = if RAW.contains(&name.as_str()) { raw(&rest[at..], &name) } else { 1 };
    written.extend_from_slice(&rest[at..at + text]);
    out.append(&mut written);
    Step { bytes: at + text, written: true }
}

/// One attribute at the start of some text.
struct Attribute {
    name: usize,
    value: std::ops::Range<usize>,
    bytes: usize,
}

impl Attribute {
    /// Reads at least one byte of what does not start with a space, `/` or `>`.
    fn read(text: &[u8]) -> Self {
        let count = |from: usize, until: &dyn Fn(u8) -> bool| text[from..].iter().take_while(|b| !until(**b)).count();
        let name = 1 + count(1, &|b| is_space(b) || b"=/>".contains(&b));
        let equals = name + count(name, &|b| !is_space(b));
        if text.get(equals) != Some(&b'=') {
            return Self { name, value: name..name, bytes: name };
        }
        let start = equals + 1 + count(equals + 1, &|b| !is_space(b));
        match text.get(start) {
            Some(quote @ (b'"' | b'\'')) => {
                let end = start + 1 + count(start + 1, &|b| b == *quote);
                Self { name, value: start + 1..end, bytes: (end + 1).min(text.len()) }
            }
            _ => {
                let end = start + count(start, &|b| is_space(b) || b == b'>');
                Self { name, value: start..end, bytes: end }
            }
        }
    }
}

/// How far the text of an element goes that has no tags in it.
fn raw(text: &[u8], name: &str) -> usize {
    let end = format!("</{name}");
    let ends = |window: &[u8]| window.eq_ignore_ascii_case(end.as_bytes());
    text.windows(end.len()).position(ends).unwrap_or(text.len())
}

fn escape(link: &str) -> String {
    link.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expect: &str) {
        let rewritten = rewrite(page.as_bytes(), |link| link.starts_with('/').then(|| format!("/p{link}")));
        assert_eq!(String::from_utf8_lossy(&rewritten), expect);
    }

    #[test]
    fn only_links_change() {
        check("a < b <a href=\"/x\">x</a> & c", "a < b <a href=\"/p/x\">x</a> & c");
        check("<A  HREF = '/x?a&amp;b' class=/y>", "<A  HREF = '/p/x?a&amp;b' class=/y>");
        check("<img src=/i.png><br/><input disabled src='/j'/>", "<img src=/p/i.png><br/><input disabled src='/p/j'/>");
        check("<p href='/x'><a href='x'>", "<p href='/x'><a href='x'>");
        check("<!-- <a href='/x'> --><a href='/y'>", "<!-- <a href='/x'> --><a href='/p/y'>");
        check(
            "<script src='/s'>'<a href=\"/x\">'</script><a href='/y'>",
            "<script src='/p/s'>'<a href=\"/x\">'</script><a href='/p/y'>",
        );
    }

    #[test]
    fn broken_pages_stay() {
        for page in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href='/x",
            "<a href=\"/x\"",
            "<!--",
            "</",
            "<a =>",
            "<script>",
            "\u{e9}<\u{e9}>",
        ] {
            check(page, page);
        }
    }
}
