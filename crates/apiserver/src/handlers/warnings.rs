//! The warnings of an answer: each once, and no more than headers can carry.

use std::collections::HashSet;

/// Characters of all texts together; beyond, each is cut to [`ITEM`].
const TOTAL: usize = 4 * 1024;
/// Characters of one text where all together are too many.
const ITEM: usize = 256;

/// Warnings in the order in which they came.
#[derive(Default)]
pub struct Warnings {
    texts: Vec<String>,
    known: HashSet<String>,
    /// Characters so far.
    length: usize,
    /// Whether texts are cut.
    cut: bool,
}

impl Warnings {
    /// Adds a text, unless it is there already or nothing more fits.
    pub fn add(&mut self, mut text: String) {
        if text.is_empty() || (self.cut && self.length >= TOTAL) || self.known.contains(&text) {
            return;
        }
        let mut length = text.chars().count();
        if !self.cut && self.length + length > TOTAL {
            self.cut = true;
            let before = std::mem::take(&mut self.texts);
            self.known.clear();
            self.length = 0;
            before.into_iter().for_each(|text| self.add(text));
            return self.add(text);
        }
        self.known.insert(text.clone());
        if self.cut && length > ITEM {
            text = text.chars().take(ITEM).collect();
            length = ITEM;
        }
        self.length += length;
        self.texts.push(text);
    }

    /// The texts.
    pub fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stay_small() {
        let check = |texts: Vec<String>, want: &[usize]| {
            let mut warnings = Warnings::default();
            texts.into_iter().for_each(|text| warnings.add(text));
            assert_eq!(warnings.into_texts().iter().map(String::len).collect::<Vec<_>>(), want);
        };
        check(vec!["a".into(), "b".into(), "a".into(), String::new()], &[1, 1]);
        check(vec!["x".repeat(3000), "y".repeat(1000)], &[3000, 1000]);
        check(vec!["x".repeat(3000), "y".repeat(3000)], &[256, 256]);
        check((0..10_000).map(|i| format!("{i:0>512}x")).collect(), &[256; 16]);
    }
}
