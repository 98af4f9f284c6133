//! Syntax errors in Go's words.

/// Go's text for a document that is not JSON.
pub(super) fn go_text(json: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let message = error.to_string();
    if message.starts_with("recursion limit") {
        return "exceeded max depth".into();
    }
    let found = offset(json, error).and_then(|at| json.get(at)).map_or("'\\x00'".to_owned(), |b| quoted(*b));
    let context = if message.contains("`,` or `}`") {
        "after object key:value pair"
    } else if message.contains("`,` or `]`") {
        "after array element"
    } else if message.starts_with("expected `:`") {
        "after object key"
    } else if message.starts_with("key must be a string") || (message.starts_with("trailing comma") && found == "'}'") {
        "looking for beginning of object key string"
    } else if message.starts_with("trailing characters") {
        "after top-level value"
    } else if message.starts_with("invalid number") && found != "'-'" || json.starts_with(b"--") {
        "in numeric literal"
    } else if message.starts_with("control character") {
        "in string literal"
    } else if message.starts_with("invalid escape") {
        "in string escape code"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {found} {context}")
}

/// Offset of the byte that cannot be.
fn offset(json: &[u8], error: &serde_json::Error) -> Option<usize> {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => json.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(line - 2)?.0 + 1,
    };
    Some(line_start + error.column().saturating_sub(1))
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".into(),
        b'"' => "'\"'".into(),
        b'\n' => "'\\n'".into(),
        b'\r' => "'\\r'".into(),
        b'\t' => "'\\t'".into(),
        b if b.is_ascii_graphic() || b == b' ' => format!("'{}'", b as char),
        b if b < 0x80 => format!("'\\x{b:02x}'"),
        b => format!("'{}'", b as char),
    }
}
