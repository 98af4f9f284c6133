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
    /// Characters of the texts as they came.
    full: usize,
    /// Characters of the texts if each is cut.
    short: usize,
}

impl Warnings {
    /// Adds a text, unless it is there already or nothing more fits.
    pub fn add(&mut self, text: String) {
        let fits = self.full <= TOTAL || self.short < TOTAL;
        if text.is_empty() || !fits || !self.known.insert(text.clone()) {
            return;
        }
        let length = text.chars().count();
        self.full += length;
        self.short += length.min(ITEM);
        self.texts.push(text);
    }

    /// The texts, cut if they are too many.
    pub fn into_texts(self) -> Vec<String> {
        let limit = if self.full > TOTAL { ITEM } else { TOTAL };
        self.texts.into_iter().map(|text| text.chars().take(limit).collect()).collect()
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
        // what crosses the bound is kept
        check(vec!["x".repeat(4096), "y".into(), "z".into()], &[256, 1, 1]);
        check((0..10_000).map(|i| format!("{i:0>512}x")).collect(), &[256; 16]);
    }
}
