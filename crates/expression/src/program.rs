//! Compiled expressions.

use crate::bindings::Bindings;
use crate::checker;
use crate::decl::DeclType;
use crate::env::Env;
use crate::error::{CompileError, EvalError, Issue};
use crate::estimate;
use crate::eval::Evaluator;
use crate::macros::Macros;
use crate::parser;
use crate::plan::{Op, Planner};
use crate::size::CostRange;
use crate::source::Source;
use crate::types::Type;
use crate::validate;
use crate::value::Value;
use std::sync::Arc;

/// A compiled expression; cheap to clone.
#[derive(Clone, Debug)]
pub struct Program(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    op: Op,
    result: Type,
    decl: Option<Arc<DeclType>>,
    used: Vec<Arc<str>>,
    estimate: CostRange,
}

/// What an evaluation gave, and what it cost.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// The value.
    pub value: Result<Value<'a>, EvalError>,
    /// The cost, also when there is no value.
    pub cost: u64,
}

/// Compiles an expression, or says in upstream's words what is wrong with it.
pub fn compile(text: &str, env: &Env) -> Result<Program, CompileError> {
    let failed = |issues: Vec<Issue>| CompileError::new(&Source::new(text), issues);
    let tree = parser::parse(text, &Macros { bind: env.bind }).map_err(failed)?;
    let checked = checker::check(&tree.root, tree.nodes, env).map_err(failed)?;
    validate::literals(&tree.root, &checked).map_err(failed)?;
    let (estimate, decl) = estimate::estimate(&tree.root, &checked, env);
    let mut planner = Planner::new(&checked);
    let op = planner.plan(&tree.root);
    if let Some(why) = planner.problem {
        return Err(CompileError::instantiation(&why));
    }
    let result = checked.types[tree.root.id as usize].clone();
    Ok(Program(Arc::new(Inner { op, result, decl, used: planner.used, estimate })))
}

impl Program {
    /// The type of its values.
    pub fn result_type(&self) -> &Type {
        &self.0.result
    }

    /// The declared type of its values, where they come from a declared variable.
    pub fn result_decl(&self) -> Option<Arc<DeclType>> {
        self.0.decl.clone()
    }

    /// Whether it refers to a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.0.used.iter().any(|name| &**name == variable)
    }

    /// What an evaluation may cost, from the bounds of the declared types.
    pub fn estimate(&self) -> CostRange {
        self.0.estimate
    }

    /// Evaluates it within a budget.
    pub fn eval<'a>(&'a self, bindings: &Bindings<'a>, budget: u64) -> Evaluation<'a> {
        let mut evaluator = Evaluator::new(bindings, budget);
        let value = evaluator.run(&self.0.op);
        Evaluation { value, cost: evaluator.total() }
    }
}
