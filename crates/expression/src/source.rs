//! The text of an expression and how a place in it is shown.

use crate::error::Issue;

/// At most so many issues are shown.
const MAX_ISSUES: usize = 100;

/// Longer lines are not shown.
const MAX_SNIPPET: usize = 16_384;

/// An expression's text.
pub(crate) struct Source<'s> {
    text: &'s str,
}

impl<'s> Source<'s> {
    pub fn new(text: &'s str) -> Self {
        Self { text }
    }

    /// The issue as cel-go prints it: place, message, the line, and a caret below.
    pub fn show(&self, issue: &Issue) -> String {
        let Some(offset) = issue.offset else { return format!("ERROR: <input>:-1:0: {}", issue.message) };
        if self.text.is_empty() {
            return format!("ERROR: <input>:1:0: {}", issue.message);
        }
        let (line, column, snippet) = self.place(offset as usize);
        let mut out = format!("ERROR: <input>:{line}:{}: {}", column + 1, issue.message);
        if snippet.len() > MAX_SNIPPET {
            return out;
        }
        out.push_str(&format!("\n | {}\n | ", snippet.replace('\t', " ")));
        for c in snippet.chars().take(column) {
            out.push(if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' });
        }
        out.push(if snippet.chars().nth(column).is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
        out
    }

    /// The line's number from 1, the column from 0, and the line.
    fn place(&self, offset: usize) -> (usize, usize, &'s str) {
        let mut left = offset;
        for (number, line) in self.text.split('\n').enumerate() {
            let length = line.chars().count();
            if left <= length {
                return (number + 1, left, line);
            }
            left -= length + 1;
        }
        (1, offset, "")
    }
}

/// Keeps issues up to a bound.
pub(crate) fn report(issues: &mut Vec<Issue>, offset: u32, message: impl Into<String>) {
    if issues.len() < MAX_ISSUES {
        issues.push(Issue { offset: Some(offset), message: message.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        #[track_caller]
        fn check(text: &str, offset: u32, expect: &str) {
            let issue = Issue { offset: Some(offset), message: "m".into() };
            assert_eq!(Source::new(text).show(&issue), expect);
        }
        check("self > x", 7, "ERROR: <input>:1:8: m\n | self > x\n | .......^");
        check("a\nb +", 4, "ERROR: <input>:2:3: m\n | b +\n | ..^");
        check(&"@".repeat(MAX_SNIPPET + 1), 2, "ERROR: <input>:1:3: m");
        check("'\u{20ac}' x", 4, "ERROR: <input>:1:5: m\n | '\u{20ac}' x\n | .\u{ff0e}..^");
    }
}
