//! Functions: one table per library, each in a file of its own.
//!
//! A row says the function's name, its signature, what a call costs and what it does. To add a library: one file with a
//! `TABLE` and one line in [`LIBRARIES`]. Functions never panic and never grow a value without bound: what is large is paid for.

pub mod authorizer;
mod cidr;
mod comparisons;
mod conversions;
mod duration;
mod go_regex;
mod ip;
mod jsonpatch;
pub(crate) mod list_operations;
mod lists;
mod named_format;
mod operators;
mod optional;
pub mod quantity;
mod regex;
pub mod semver;
mod sets;
pub(crate) mod string_format;
mod strings;
mod time;
mod url;

use crate::cost::Cost;
use crate::error::EvalError;
use crate::types::{Signature, Type};
use crate::value::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

pub use go_regex::compile as compile_regex;
pub(crate) use regex::Regex;

/// What a function does with its arguments, the target of a member call first.
pub(crate) type Call = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// One way to call a function.
pub(crate) struct Overload {
    pub function: &'static str,
    pub signature: &'static str,
    pub cost: Cost,
    pub call: Call,
    /// The call looks at its arguments' types itself, so that rows of one function need not be told apart.
    pub dynamic: bool,
}

impl Overload {
    pub const fn new(function: &'static str, signature: &'static str, cost: Cost, call: Call) -> Self {
        Self { function, signature, cost, call, dynamic: false }
    }

    /// A row whose call looks at its arguments' types itself.
    pub const fn dynamic(function: &'static str, signature: &'static str, cost: Cost, call: Call) -> Self {
        Self { function, signature, cost, call, dynamic: true }
    }
}

/// The libraries of Kubernetes' base environment.
static LIBRARIES: &[&[Overload]] = &[
    operators::TABLE,
    comparisons::LESS,
    comparisons::LESS_EQUALS,
    comparisons::GREATER,
    comparisons::GREATER_EQUALS,
    conversions::TABLE,
    duration::TABLE,
    time::TABLE,
    optional::TABLE,
    strings::TABLE,
    string_format::TABLE,
    lists::TABLE,
    lists::IS_SORTED,
    lists::MIN,
    lists::MAX,
    list_operations::TABLE,
    list_operations::SORTS,
    sets::TABLE,
    regex::TABLE,
    url::TABLE,
    quantity::TABLE,
    ip::TABLE,
    cidr::TABLE,
    named_format::TABLE,
    semver::TABLE,
    authorizer::TABLE,
];

/// Libraries that only expressions of mutations see.
static MUTATION: &[&[Overload]] = &[jsonpatch::TABLE];

/// A row with its signature read.
pub(crate) struct Function {
    pub overload: &'static Overload,
    pub signature: Signature,
}

pub(crate) struct Functions(HashMap<&'static str, Vec<Function>>);

static BASE: LazyLock<Functions> = LazyLock::new(|| Functions::new(LIBRARIES));
static MUTATIONS: LazyLock<Functions> = LazyLock::new(|| Functions::new(MUTATION));
/// The names of types that libraries bring.
static TYPES: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
    let types = BASE.0.values().flatten().flat_map(|f| f.signature.params.iter().chain([&f.signature.result]));
    types.filter_map(|t| if let Type::Opaque(name) = t { Some(*name) } else { None }).collect()
});

impl Functions {
    fn new(libraries: &'static [&'static [Overload]]) -> Self {
        let mut all: HashMap<&'static str, Vec<Function>> = HashMap::new();
        for overload in libraries.iter().copied().flatten() {
            if let Some(signature) = Signature::parse(overload.signature) {
                all.entry(overload.function).or_default().push(Function { overload, signature });
            }
        }
        Self(all)
    }
}

/// The ways to call a function.
pub(crate) fn find(name: &str, mutation: bool) -> Option<&'static [Function]> {
    let extra = mutation.then(|| MUTATIONS.0.get(name)).flatten();
    extra.or_else(|| BASE.0.get(name)).map(Vec::as_slice)
}

/// The type of a library by its name.
pub(crate) fn find_type(name: &str) -> Option<&'static str> {
    TYPES.get(name).copied()
}

/// The error of a call whose arguments fit no row.
pub(crate) fn no_such_overload(function: &str, args: &[Value<'_>]) -> EvalError {
    let types: Vec<&str> = args.iter().map(Value::type_name).collect();
    EvalError::new(format!("no such overload: {function}({})", types.join(", ")))
}

/// The text argument at a place; rows that take text only ever see text.
pub(crate) fn text<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v str, EvalError> {
    args.get(index).and_then(Value::as_str).ok_or_else(EvalError::no_such_overload)
}

/// The whole-number argument at a place.
pub(crate) fn int(args: &[Value<'_>], index: usize) -> Result<i64, EvalError> {
    args.get(index).and_then(Value::as_int).ok_or_else(EvalError::no_such_overload)
}

/// The library's own value at a place.
pub(crate) fn opaque<'v, T: 'static>(args: &'v [Value<'_>], index: usize) -> Result<&'v T, EvalError> {
    args.get(index).and_then(|value| value.as_opaque()).ok_or_else(EvalError::no_such_overload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_well_formed() {
        for overload in LIBRARIES.iter().chain(MUTATION).copied().flatten() {
            assert!(Signature::parse(overload.signature).is_some(), "{} {}", overload.function, overload.signature);
        }
    }
}
