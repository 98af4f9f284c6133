//! Rules as tables: a line names a field and what must hold of it, and [`check`] goes through the lines in order.
//!
//! What depends on one field alone belongs into a table; what depends on several stays a function, which a table
//! may call by [`Check::In`]. [`each`] visits the items of a list with their paths, [`Unique`] finds names given twice.

use crate::field::{Errors, Fields, Path, same};
use crate::names::TextRule;
use serde_json::Value;
use std::collections::HashSet;

/// A field, and what must hold of it.
pub type Rule = (&'static str, Check);

/// What must hold of a field. A text or list that is absent is empty, a number that is absent is zero.
#[derive(Clone, Copy)]
pub enum Check {
    /// It is not empty; the detail of the error.
    Given(&'static str),
    /// It is not empty, and one of these.
    OneOf(&'static [&'static str]),
    /// It is one of these, and empty is not among them.
    Among(&'static [&'static str]),
    /// Where it is there it is one of these.
    Optional(&'static [&'static str]),
    /// It is not empty, and a good name.
    Named(TextRule),
    /// It is empty or a good name.
    MaybeNamed(TextRule),
    /// Where it is there it is a good name, which may not be empty.
    NamedIfThere(TextRule),
    /// It is not below zero.
    NotNegative,
    /// Where it is there it lies between the two; the detail of the error.
    Within(i64, i64, &'static str),
    /// It is the number of a port.
    Port,
    /// It is not there, or empty; the detail of the error.
    Unset(&'static str),
    /// It is not there at all; the detail of the error.
    Absent(&'static str),
    /// What a function finds in the object, for a field that depends on others; called with the field's path.
    In(fn(&mut Errors, &Value, &Path<'_>)),
    /// What a function finds in the field; called with `Null` where it is absent.
    By(fn(&mut Errors, &Value, &Path<'_>)),
    /// What a function finds in each item.
    Each(fn(&mut Errors, &Value, &Path<'_>)),
}

/// Adds what the fields of an object get wrong, in the order of the rules.
pub fn check(errors: &mut Errors, of: &Value, path: &Path<'_>, rules: &[Rule]) {
    for (field, rule) in rules {
        match rule {
            Check::Each(find) => each(of, field, path, |item, path| find(errors, item, path)),
            rule => one(errors, of, field, *rule, &path.field(field)),
        }
    }
}

fn one(errors: &mut Errors, of: &Value, field: &str, rule: Check, path: &Path<'_>) {
    let (value, text) = (of.at(field), of.text(field));
    let named = |errors: &mut Errors, rule: TextRule| errors.invalid_each(path, text, rule(text));
    match rule {
        Check::Given(detail) if text.is_empty() && of.list(field).is_empty() => errors.required(path, detail),
        Check::OneOf(_) | Check::Named(_) if text.is_empty() => errors.required(path, ""),
        Check::OneOf(supported) | Check::Among(supported) => errors.one_of(path, text, supported),
        Check::Optional(supported) if of.has(field) => errors.one_of(path, text, supported),
        Check::Named(rule) => named(errors, rule),
        Check::MaybeNamed(rule) if !text.is_empty() => named(errors, rule),
        Check::NamedIfThere(rule) if of.has(field) => named(errors, rule),
        Check::NotNegative => errors.non_negative(path, of.int(field).unwrap_or(0)),
        Check::Within(low, high, detail) => {
            if let Some(number) = of.int(field).filter(|number| !(low..=high).contains(number)) {
                errors.invalid(path, number, detail);
            }
        }
        Check::Port => errors.port_number(path, of.int(field).unwrap_or(0)),
        Check::Unset(detail) if !same(value, &Value::Null) => errors.forbidden(path, detail),
        Check::Absent(detail) if of.has(field) => errors.forbidden(path, detail),
        Check::In(find) => find(errors, of, path),
        Check::By(find) => find(errors, value, path),
        // held, or for the caller to walk
        _ => {}
    }
}

/// Visits the items of a list, each with its path.
pub fn each<'a>(of: &'a Value, list: &str, path: &Path<'_>, mut visit: impl FnMut(&'a Value, &Path<'_>)) {
    let list_path = path.field(list);
    for (i, item) in of.list(list).iter().enumerate() {
        visit(item, &list_path.index(i));
    }
}

/// Visits the items of several lists, list by list.
pub fn each_of<'a>(of: &'a Value, lists: &[&str], path: &Path<'_>, mut visit: impl FnMut(&'a Value, &Path<'_>)) {
    lists.iter().for_each(|list| each(of, list, path, &mut visit));
}

/// Visits the texts of a list.
pub fn each_text<'a>(of: &'a Value, list: &str, path: &Path<'_>, mut visit: impl FnMut(&'a str, &Path<'_>)) {
    each(of, list, path, |item, path| item.as_str().into_iter().for_each(|text| visit(text, path)));
}

/// The names given so far.
#[derive(Default)]
pub struct Unique<'a>(HashSet<&'a str>);

impl<'a> Unique<'a> {
    /// Takes a name; one that was given before is a duplicate.
    pub fn add(&mut self, errors: &mut Errors, name: &'a str, path: &Path<'_>) {
        if !self.0.insert(name) {
            errors.duplicate(path, name);
        }
    }

    /// Whether a name was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Starts with names that were given elsewhere.
    pub fn with(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;
    use serde_json::json;

    fn found(of: Value, rules: &[Rule]) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors, &of, &Path::root("x"), rules);
        errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn absent_is_not_empty() {
        let rules: &[Rule] = &[
            ("a", Check::OneOf(&["v"])),
            ("b", Check::Optional(&["v"])),
            ("c", Check::MaybeNamed(names::label)),
            ("d", Check::NamedIfThere(names::label)),
            ("e", Check::Within(1, 2, "out")),
            ("f", Check::Unset("no")),
            ("g", Check::Given("why")),
        ];
        assert_eq!(found(json!({}), rules), ["x.a: Required value", "x.g: Required value: why"]);
        assert_eq!(
            found(json!({"a": "v", "b": "v", "c": "", "e": 2, "f": {}, "g": ["i"]}), rules),
            Vec::<String>::new()
        );
        let wrong = found(json!({"a": "w", "b": "", "d": "", "e": 3, "f": 0, "g": "t"}), rules);
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert_eq!(wrong[0], "x.a: Unsupported value: \"w\": supported values: \"v\"");
        assert_eq!(wrong[3..], ["x.e: Invalid value: 3: out", "x.f: Forbidden: no"]);
    }

    #[test]
    fn items_have_paths_and_names_are_unique() {
        let (mut errors, mut seen, of) =
            (Errors::default(), Unique::with(["a"]), json!({"l": [{"n": "b"}, {"n": "a"}]}));
        each(&of, "l", &Path::root("x"), |item, path| seen.add(&mut errors, item.text("n"), &path.field("n")));
        let got: Vec<&str> = errors.0.iter().map(|c| c.field.as_str()).collect();
        assert_eq!(got, ["x.l[1].n"]);
    }
}
