//! Unified differences of two texts, as messages about immutable fields hold them.
//!
//! Lines are matched as Python's difflib (and Go's port of it) does: the longest block that both have, then the
//! same to its left and right; of texts of 200 lines and more, frequent lines start no block.

use serde_json::Value;
use std::collections::HashMap;

/// Lines shown around a change.
const CONTEXT: usize = 3;
/// Texts from this many lines on have frequent lines.
const LONG: usize = 200;

/// The difference between two values of a schema, printed as Go prints their internal types.
pub fn difference(schema: &str, old: &Value, new: &Value) -> String {
    let print = |value| schema::internal_json(schema, value, schema::Layout::Indented);
    unified(&print(old), &print(new))
}

/// Lines `a.start..a.end` of the one text that are `b.start..b.end` of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    a: (usize, usize),
    b: (usize, usize),
    equal: bool,
}

/// A difference without file names.
pub fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut out = String::new();
    for hunk in hunks(&spans(&a, &b)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let (of_a, of_b) = (range(first.a.0, last.a.1), range(first.b.0, last.b.1));
        out.push_str(&format!("@@ -{of_a} +{of_b} @@\n"));
        for span in hunk {
            let mut push =
                |mark: char, lines: &[&str]| lines.iter().for_each(|l| out.push_str(&format!("{mark}{l}\n")));
            match span.equal {
                true => push(' ', &a[span.a.0..span.a.1]),
                false => {
                    push('-', &a[span.a.0..span.a.1]);
                    push('+', &b[span.b.0..span.b.1]);
                }
            }
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// The spans of both texts in order, equal and changed ones.
fn spans(a: &[&str], b: &[&str]) -> Vec<Span> {
    let mut blocks = Vec::new();
    let places = places(b);
    let mut todo = vec![(0, a.len(), 0, b.len())];
    while let Some((a0, a1, b0, b1)) = todo.pop() {
        let (i, j, size) = longest(a, b, &places, (a0, a1), (b0, b1));
        if size > 0 {
            blocks.push((i, j, size));
            todo.extend([(a0, i, b0, j), (i + size, a1, j + size, b1)]);
        }
    }
    blocks.sort_unstable();
    blocks.push((a.len(), b.len(), 0));
    let (mut out, mut at): (Vec<Span>, _) = (Vec::new(), (0, 0));
    for (i, j, size) in blocks {
        if at != (i, j) {
            out.push(Span { a: (at.0, i), b: (at.1, j), equal: false });
        }
        match out.last_mut().filter(|last| last.equal) {
            // blocks that touch are one
            Some(last) => (last.a.1, last.b.1) = (i + size, j + size),
            None if size > 0 => out.push(Span { a: (i, i + size), b: (j, j + size), equal: true }),
            None => {}
        }
        at = (i + size, j + size);
    }
    out
}

/// Where each line of `b` stands; frequent lines of long texts are left out.
fn places<'a>(b: &[&'a str]) -> HashMap<&'a str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    b.iter().enumerate().for_each(|(j, line)| places.entry(line).or_default().push(j));
    if b.len() >= LONG {
        places.retain(|_, at| at.len() <= b.len() / 100 + 1);
    }
    places
}

/// The longest block that both ranges hold, the first of several; frequent lines only extend it.
fn longest(
    a: &[&str],
    b: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (a0, a1): (usize, usize),
    (b0, b1): (usize, usize),
) -> (usize, usize, usize) {
    let (mut best_a, mut best_b, mut size) = (a0, b0, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in a.iter().enumerate().take(a1).skip(a0) {
        let mut next = HashMap::new();
        for &j in places.get(line).into_iter().flatten().filter(|j| (b0..b1).contains(*j)) {
            let length = j.checked_sub(1).and_then(|before| lengths.get(&before)).unwrap_or(&0) + 1;
            next.insert(j, length);
            if length > size {
                (best_a, best_b, size) = (i + 1 - length, j + 1 - length, length);
            }
        }
        lengths = next;
    }
    while best_a > a0 && best_b > b0 && a[best_a - 1] == b[best_b - 1] {
        (best_a, best_b, size) = (best_a - 1, best_b - 1, size + 1);
    }
    while best_a + size < a1 && best_b + size < b1 && a[best_a + size] == b[best_b + size] {
        size += 1;
    }
    (best_a, best_b, size)
}

/// Groups of changes with their context.
fn hunks(spans: &[Span]) -> Vec<Vec<Span>> {
    let (mut out, mut hunk) = (Vec::new(), Vec::new());
    for (i, span) in spans.iter().enumerate() {
        if !span.equal {
            hunk.push(*span);
            continue;
        }
        let length = span.a.1 - span.a.0;
        let head = |n: usize| Span { a: (span.a.0, span.a.0 + n), b: (span.b.0, span.b.0 + n), equal: true };
        let tail = |n: usize| Span { a: (span.a.1 - n, span.a.1), b: (span.b.1 - n, span.b.1), equal: true };
        let (first, last, shown) = (i == 0, i + 1 == spans.len(), length.min(CONTEXT));
        if first {
            hunk.push(tail(shown));
        } else if last {
            hunk.push(head(shown));
        } else if length > 2 * CONTEXT {
            hunk.push(head(shown));
            out.push(std::mem::replace(&mut hunk, vec![tail(shown)]));
        } else {
            hunk.push(*span);
        }
    }
    out.push(hunk);
    out.retain(|hunk| hunk.iter().any(|span| !span.equal));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, want: &str) {
        let lines = |text: &str| text.split(' ').collect::<Vec<_>>().join("\n");
        assert_eq!(unified(&lines(old), &lines(new)), want);
    }

    #[test]
    fn changes_are_shown_in_their_context() {
        check("a b c", "a b c", "");
        check("1 2 3 4 5", "1 2 3 x 5", "@@ -1,5 +1,5 @@\n 1\n 2\n 3\n-4\n+x\n 5\n");
        check("1 2 3 4 5 6", "2 3 4 5 6", "@@ -1,4 +1,3 @@\n-1\n 2\n 3\n 4\n");
        check(
            "a 1 2 3 4 5 6 7 b",
            "x 1 2 3 4 5 6 7 y",
            "@@ -1,4 +1,4 @@\n-a\n+x\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-b\n+y\n",
        );
    }
}
