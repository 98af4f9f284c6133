//! Text as Go quotes it (`%q`), which messages of the API are full of.

use std::fmt::{self, Write};

/// Prints a text as Go's `%q` does: `é` stays, a line break is `\n`, what cannot be seen is `\x00` or `\u200b`.
pub fn quoted(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// A text between quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                ' '..='~' => f.write_char(c)?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{c}' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{b}' => f.write_str("\\v")?,
                c if (c as u32) < 0x80 => write!(f, "\\x{:02x}", c as u32)?,
                c if is_printable(c) => f.write_char(c)?,
                c if (c as u32) < 0x10000 => write!(f, "\\u{:04x}", c as u32)?,
                c => write!(f, "\\U{:08x}", c as u32)?,
            }
        }
        f.write_char('"')
    }
}

/// Whether a character can be seen. Marks that belong to the letter before them can: Rust escapes them at the start alone.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii_control() {
        return false;
    }
    if c.is_ascii() {
        return true;
    }
    let mut text = ['a'; 2];
    text[1] = c;
    String::from_iter(text).escape_debug().nth(2).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        let check = |text: &str, want: &str| assert_eq!(quoted(text).to_string(), want);
        check("é", "\"é\"");
        check("it's \"x\"\\", r#""it's \"x\"\\""#);
        check("\n\t\0\u{7f}\u{b}", r#""\n\t\x00\x7f\v""#);
        check("\u{200b}\u{1f600}\u{e0001}", "\"\\u200b\u{1f600}\\U000e0001\"");
        check("e\u{301}", "\"e\u{301}\"");
    }
}
