//! What a call may cost, by the rule of its row and what is known of its arguments.

use crate::cost::{Cost, LIST, PATTERN, STRUCT, TRAVERSAL};
use crate::library::Function;
use crate::size::CostRange as Range;
use crate::types::Type;

/// What is known of an argument.
pub(crate) struct Known {
    pub size: Range,
    /// The size of its elements.
    pub element: Range,
    /// The whole number it is.
    pub literal: Option<i64>,
    pub r#type: Type,
}

/// The cost of a call without its arguments', and the size of its result where the rule gives it.
pub(crate) struct Estimated {
    pub cost: Range,
    pub size: Option<Range>,
}

/// An address has 4 or 16 bytes.
const ADDRESS: Range = Range::new(4, 16);
/// The longest pattern of a named format.
const FORMAT_PATTERN: f64 = 128.0;
/// The longest name of a format.
const FORMAT_NAME: u64 = 64;

pub(crate) fn estimate(row: &Function, known: &[Known]) -> Estimated {
    let cost = row.overload.cost;
    let size = |index: usize| known.get(index).map_or(Range::UNKNOWN, |k| k.size);
    let costs = |cost: Range| Estimated { cost, size: None };
    let gives = |cost: Range, size: Range| Estimated { cost, size: Some(size) };
    let one = Range::fixed;
    match cost {
        Cost::Free => costs(one(0)),
        Cost::One => costs(one(1)),
        Cost::Fixed(n) => costs(one(n)),
        Cost::Traversal(times) => {
            Estimated { cost: size(0).part(times as f64 * TRAVERSAL), size: converted(row, size(0)) }
        }
        Cost::Transform(times) => gives(size(0).part(times as f64 * TRAVERSAL), size(0)),
        Cost::Affix => costs(size(1).part(TRAVERSAL)),
        Cost::Contains => costs(size(0).part(TRAVERSAL) * size(1).part(TRAVERSAL)),
        Cost::Pattern => costs(pattern(size(0), size(1))),
        Cost::Find => gives(pattern(size(0), size(1)), Range::new(0, size(0).max)),
        Cost::Replace => gives(size(0).part(2.0 * TRAVERSAL), replaced(size(0), size(1), size(2))),
        Cost::Split => {
            let most = known.get(2).and_then(|k| k.literal).map_or(size(0).max, |limit| limit as u64);
            gives(size(0).part(2.0 * TRAVERSAL), Range::new(0, most))
        }
        Cost::JoinText => {
            let joined = joined(known);
            gives(joined.part(TRAVERSAL), joined)
        }
        Cost::Join => {
            let sum = size(0) + size(1);
            gives(sum.part(TRAVERSAL), sum)
        }
        Cost::JoinLists => gives(one(1), size(0) + size(1)),
        Cost::Order => costs(smaller(size(0), size(1))),
        Cost::Equality => costs(equality(row, known).unwrap_or_else(|| smaller(size(0), size(1)))),
        Cost::InList => costs(size(1)),
        Cost::Elements => costs(elements(known)),
        Cost::Selector => {
            let length = size(1);
            costs(one(LIST) + length.part(TRAVERSAL) + length.part(0.5) * one(LIST + STRUCT))
        }
        Cost::ContainsIp(text) => costs((ADDRESS + ADDRESS).part(TRAVERSAL) + text_part(text, size(1))),
        Cost::ContainsCidr(text) => {
            let network = (ADDRESS + ADDRESS).part(TRAVERSAL) + ADDRESS.part(TRAVERSAL) + one(1);
            costs(network + text_part(text, size(1)))
        }
        Cost::Format => costs(size(1).part(TRAVERSAL).part(FORMAT_PATTERN * PATTERN)),
        Cost::Product(times) => costs((size(0) * size(1)).part(times as f64) + one(1)),
        Cost::Range => allocated(one(literal(known, 0, u64::MAX)), 1.0),
        Cost::Slice => {
            let length = literal(known, 2, size(0).max).wrapping_sub(literal(known, 1, 0));
            allocated(one(length), 1.0)
        }
        Cost::Copy => allocated(size(0), 1.0),
        Cost::Flatten => allocated(size(0), if known.len() > 1 { literal(known, 1, u64::MAX) as f64 } else { 1.0 }),
        Cost::Pairs(index) => {
            let texts = row.overload.function == "sort"
                && matches!(&row.signature.params[0], Type::List(t) if matches!(**t, Type::String | Type::Bytes));
            allocated(size(index) * size(index), if texts { 2.0 + TRAVERSAL } else { 2.0 })
        }
        Cost::Quote => {
            let text = size(0);
            let quoted = Range::new(text.min.saturating_add(2), text.max.saturating_mul(2).saturating_add(2));
            gives(text.part(TRAVERSAL), quoted)
        }
    }
}

fn literal(known: &[Known], index: usize, otherwise: u64) -> u64 {
    known.get(index).and_then(|k| k.literal).map_or(otherwise, |n| u64::try_from(n).unwrap_or(0))
}

fn allocated(size: Range, part: f64) -> Estimated {
    Estimated { cost: size.part(part) + Range::fixed(LIST + 1), size: Some(size) }
}

fn text_part(text: bool, size: Range) -> Range {
    if text { size.part(TRAVERSAL) } else { Range::default() }
}

/// A character may become four bytes, four bytes one character.
fn converted(row: &Function, size: Range) -> Option<Range> {
    match row.overload.function {
        "bytes" => Some(Range::new(size.min, size.max.saturating_mul(4))),
        "string" => Some(Range::new(size.min / 4, size.max)),
        _ => None,
    }
}

/// One is added to the text's length, since a pattern costs something on an empty text too.
fn pattern(text: Range, pattern: Range) -> Range {
    (text + Range::fixed(1)).part(TRAVERSAL) * pattern.part(PATTERN)
}

fn smaller(a: Range, b: Range) -> Range {
    let max = a.max.min(b.max);
    Range::new(u64::from(max > 0), max).part(TRAVERSAL)
}

/// `==` of values of libraries.
fn equality(row: &Function, known: &[Known]) -> Option<Range> {
    let [Known { r#type: Type::Opaque(a), .. }, Known { r#type: Type::Opaque(b), size, .. }] = known else {
        return None;
    };
    if a != b || row.overload.function != "_==_" {
        return None;
    }
    Some(match *a {
        "kubernetes.NamedFormat" => Range::new(1, FORMAT_NAME).part(TRAVERSAL),
        "kubernetes.URL" if *size == Range::UNKNOWN => Range::fixed(1),
        "kubernetes.URL" => Range::new(1, size.max).part(TRAVERSAL),
        _ => Range::fixed(1),
    })
}

fn elements(known: &[Known]) -> Range {
    let Some(target) = known.first() else { return Range::UNKNOWN };
    match &target.r#type {
        Type::List(t) => {
            let texts = matches!(**t, Type::String | Type::Bytes);
            let one = Range::fixed(1) + if texts { target.element.part(TRAVERSAL) } else { Range::default() };
            target.size * one
        }
        _ => target.size.part(TRAVERSAL),
    }
}

fn joined(known: &[Known]) -> Range {
    let Some(list) = known.first() else { return Range::UNKNOWN };
    let texts = if matches!(list.r#type, Type::List(_)) { list.size * list.element } else { Range::default() };
    let separators = Range::new(list.size.min.saturating_sub(1), list.size.max.saturating_sub(1));
    known.get(1).map_or(texts, |separator| texts + separator.size * separators)
}

/// The length after every `old` became `new`.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let (most, kept_most) = match old.min {
        // An empty text is found around every character.
        0 => (text.max.saturating_add(1), text.max),
        _ if new.max <= old.min => (0, text.max),
        shortest => (text.max.div_ceil(shortest), 0),
    };
    let (least, kept_least) = match old.max {
        0 => (text.min.saturating_add(1), text.min),
        _ if old.max <= new.min => (0, text.min),
        longest => (text.min.div_ceil(longest), 0),
    };
    Range::new(least, most) * new + Range::new(kept_least, kept_most)
}
