//! The members of a JSON object, found without parsing. Objects in the store are canonical: no white space.

/// A member of an object: ranges of the key (without quotes) and of the value.
pub struct Member {
    /// From after the opening quote to the closing one.
    pub key: (usize, usize),
    /// From the value's first byte to after its last.
    pub value: (usize, usize),
}

/// Walks over the members of an object; ends where there is none, or where the text breaks off.
pub struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    /// The members that begin at `at`, after a brace.
    pub fn new(json: &'a [u8], at: usize) -> Self {
        Self { json, at }
    }
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        let quote = self.at + usize::from(self.json.get(self.at) == Some(&b','));
        let key_end = string_end(self.json, quote)?;
        let value = (key_end + 1, value_end(self.json, key_end + 1)?);
        self.at = value.1;
        Some(Member { key: (quote + 1, key_end - 1), value })
    }
}

/// The index after the string that begins at `from`.
fn string_end(json: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    if json.get(from) != Some(&b'"') {
        return None;
    }
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The index after the value that begins at `from`.
fn value_end(json: &[u8], from: usize) -> Option<usize> {
    let (mut at, mut depth) = (from, 0usize);
    loop {
        match json.get(at)? {
            b'"' => {
                at = string_end(json, at)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            b',' if depth == 0 => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found() {
        let check = |json: &str, want: &[(&str, &str)]| {
            let text = |(from, to): (usize, usize)| &json[from..to];
            let got: Vec<_> = Members::new(json.as_bytes(), 1).map(|m| (text(m.key), text(m.value))).collect();
            assert_eq!(got, want, "{json}");
        };
        check("{}", &[]);
        check(r#"{"a":1,"b":"x,}\"","c":{"d":[1,{}]}}"#, &[("a", "1"), ("b", r#""x,}\"""#), ("c", r#"{"d":[1,{}]}"#)]);
        check(r#"{"a":true,"b":[]"#, &[("a", "true"), ("b", "[]")]);
        check(r#"{"a":"b"#, &[]);
        check("x", &[]);
    }
}
