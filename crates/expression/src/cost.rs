//! What calls cost at run time, in upstream's units.

use crate::collection::{List, Map};
use crate::value::Value;

/// What a node of a path costs.
pub(crate) const SELECT: u64 = 1;
/// What making a list costs.
pub(crate) const LIST: u64 = 10;
/// What making a map costs.
pub(crate) const MAP: u64 = 30;
/// What making an object costs.
pub(crate) const STRUCT: u64 = 40;
/// What an authorization check costs: two of them, no more, fit into one expression.
pub(crate) const CHECK: u64 = 350_000;
/// The part of a unit that reading a character costs.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// The part of a unit that a character of a pattern costs.
pub(crate) const PATTERN: f64 = 0.25;
/// Nested values are counted so far, no further.
const MAX_VISITS: u32 = 1_000_000;

/// The rule by which a function's calls are charged. `estimate` uses the same rules on bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Nothing beyond its arguments.
    Free,
    /// One unit.
    One,
    /// A fixed number of units.
    Fixed(u64),
    /// So many readings of the first argument.
    Traversal(u64),
    /// So many readings of the first argument; the result is as long as it.
    Transform(u64),
    /// Reading the target; bounds are those of the argument.
    Affix,
    /// `contains`: both texts against each other.
    Contains,
    /// A pattern (the second argument) against a text.
    Pattern,
    /// A pattern whose finds may be as many as the text is long.
    Find,
    /// `replace`
    Replace,
    /// `split`
    Split,
    /// The length of the result, twice.
    JoinText,
    /// Both operands' lengths: `+` of texts.
    Join,
    /// `+` of lists.
    JoinLists,
    /// The shorter operand's length: `<` of texts.
    Order,
    /// As `Order`; one unit for values of libraries.
    Equality,
    /// Every element of a list (the second argument).
    InList,
    /// Every element, and what it consists of.
    Elements,
    /// A label or field selector (the second argument).
    Selector,
    /// An address in a network; whether it is given as text.
    ContainsIp(bool),
    /// A network in a network; whether it is given as text.
    ContainsCidr(bool),
    /// A named format on a text.
    Format,
    /// Both lists against each other: sets.
    Product(u64),
    /// `lists.range`: the length of the result.
    Range,
    /// `slice`: the length of the result.
    Slice,
    /// `reverse`: the length of the list.
    Copy,
    /// `flatten`: the length of the list, for each level.
    Flatten,
    /// `sort`, `distinct`: every element of that argument with every other.
    Pairs(usize),
    /// `strings.quote`
    Quote,
}

/// The cost of a call. What depends on the result is charged after it: `result` is then there.
pub(crate) fn charge(cost: Cost, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
    let size = |index: usize| args.get(index).map_or(0, Value::size);
    let length = |value: Option<&Value<'_>>| value.map_or(0, Value::size);
    match cost {
        Cost::Free => 0,
        Cost::One | Cost::JoinLists => 1,
        Cost::Fixed(n) => n,
        Cost::Traversal(times) | Cost::Transform(times) => traversal(size(0).saturating_mul(times)),
        Cost::Affix => traversal(size(0)),
        Cost::Replace | Cost::Split => traversal(size(0).saturating_mul(2)),
        Cost::Contains => traversal(size(0)).saturating_mul(traversal(size(1))),
        Cost::Pattern | Cost::Find => traversal(size(0).saturating_add(1)).saturating_mul(factor(size(1), PATTERN)),
        Cost::JoinText => traversal(length(result).saturating_mul(2)),
        Cost::Join => traversal(size(0).saturating_add(size(1))),
        Cost::Equality if matches!(args.first(), Some(Value::Opaque(_))) => 1,
        Cost::Order | Cost::Equality => traversal(size(0).min(size(1))),
        Cost::InList => size(1),
        Cost::Elements => args.first().map_or(0, elements),
        Cost::Selector => selector(size(1)),
        Cost::ContainsIp(text) => traversal(size(0).saturating_mul(2)) + if text { traversal(size(1)) } else { 0 },
        Cost::ContainsCidr(text) => {
            traversal(size(0).saturating_mul(2)) + traversal(size(0)) + 1 + if text { traversal(size(1)) } else { 0 }
        }
        Cost::Format => traversal(size(1).saturating_add(1)).saturating_mul(factor(size(0), PATTERN)),
        Cost::Product(times) => size(0).saturating_mul(size(1)).saturating_mul(times).saturating_add(1),
        Cost::Range => {
            u64::try_from(args.first().and_then(Value::as_int).unwrap_or(0)).unwrap_or(0).saturating_add(LIST + 1)
        }
        Cost::Slice => length(result).saturating_add(LIST + 1),
        Cost::Copy => size(0).saturating_add(LIST + 1),
        Cost::Flatten => {
            let levels = args.get(1).and_then(Value::as_int).map_or(1, |depth| u64::try_from(depth).unwrap_or(0));
            size(0).saturating_mul(levels).saturating_add(LIST + 1)
        }
        Cost::Pairs(index) => pairs(args.get(index)).saturating_add(LIST + 1),
        Cost::Quote => traversal(size(0)),
    }
}

/// Whether the cost is known only when the result is.
pub(crate) fn is_late(cost: Cost) -> bool {
    matches!(cost, Cost::JoinText | Cost::Slice)
}

/// The cost of reading so many characters.
pub(crate) fn traversal(size: u64) -> u64 {
    factor(size, TRAVERSAL)
}

/// A part of a number, rounded up; the conversion saturates.
pub(crate) fn factor(size: u64, part: f64) -> u64 {
    (size as f64 * part).ceil() as u64
}

/// Comparing every element with every other; texts are read for it.
fn pairs(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 0 };
    let texts = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
    let length = list.len() as u64;
    (length.saturating_mul(length) as f64 * if texts { 2.0 + TRAVERSAL } else { 2.0 }) as u64
}

/// Reading a selector, and what its requirements need: the shortest takes two characters.
fn selector(size: u64) -> u64 {
    let requirements = factor(size, 0.5);
    LIST.saturating_add(traversal(size)).saturating_add(requirements.saturating_mul(LIST + STRUCT))
}

fn elements(value: &Value<'_>) -> u64 {
    let mut visits = MAX_VISITS;
    deep(value, &mut visits)
}

fn deep(value: &Value<'_>, visits: &mut u32) -> u64 {
    let Some(left) = visits.checked_sub(1) else { return u64::from(MAX_VISITS) };
    *visits = left;
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => deep_list(list, visits),
        Value::Map(map) => deep_map(map, visits),
        _ => 1,
    }
}

fn deep_list(list: &List<'_>, visits: &mut u32) -> u64 {
    list.iter().take(MAX_VISITS as usize).flatten().fold(0, |sum: u64, item| sum.saturating_add(deep(&item, visits)))
}

fn deep_map(map: &Map<'_>, visits: &mut u32) -> u64 {
    map.keys().iter().fold(0, |sum: u64, key| {
        let value = map.get(key).ok().flatten().map_or(0, |value| deep(&value, visits));
        sum.saturating_add(deep(key, visits)).saturating_add(value)
    })
}
