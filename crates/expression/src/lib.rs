//! Common Expression Language as Kubernetes v1.36 uses it: for validation rules of custom resources, admission policies,
//! match conditions, authorization configuration and device selectors.
//!
//! The way of an expression: text → tokens (`lexer`) → tree (`parser`, `macros`) → types (`checker`) → literals
//! (`validate`) and static cost (`estimate`) → operations (`plan`): a [`Program`]. It is evaluated (`eval`, `fold`) over
//! [`Bindings`], whose values are views of JSON that is neither copied nor converted before it is looked at.
//!
//! Invariants: no panic and no unbounded recursion, time or memory, whatever the text and the values are: trees are at most
//! 250 operations deep, every operation is charged in upstream's units, and what shares its parts (so that it is larger than
//! it costs) is only compared and written so far. Error texts are those of cel-go and of Kubernetes.
//!
//! Deliberately absent: protobuf messages, partial evaluation with unknown values, the comprehension-free subset, and any
//! knowledge of where expressions come from.

mod ast;
mod bindings;
mod checker;
mod collection;
mod cost;
mod decl;
mod env;
mod equality;
mod error;
mod escape;
mod estimate;
mod estimate_call;
mod eval;
mod fold;
mod json;
mod lexer;
pub mod library;
pub mod limits;
mod literal;
mod macros;
mod number;
mod parser;
mod plan;
mod program;
mod size;
mod source;
mod time;
mod types;
mod unify;
mod validate;
mod value;

pub use bindings::Bindings;
pub use collection::{Key, List, Map, Struct};
pub use decl::{DeclType, Kind, ListType, Object, UNBOUNDED};
pub use env::Env;
pub use error::{CompileError, EvalError, Issue};
pub use escape::{escape, is_reserved};
pub use program::{Evaluation, Program, compile};
pub use size::CostRange;
pub use time::Moment;
pub use types::Type;
pub use value::{Opaque, Text, Value};

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod tests;
