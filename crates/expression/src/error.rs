//! What goes wrong: at compile time with a place in the text, at run time with cel-go's words.

use crate::source::Source;
use std::borrow::Cow;
use std::fmt;

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An operation failed: `no such key: x`, `division by zero`.
    #[error("{0}")]
    Failed(Cow<'static, str>),
    /// The cost passed the budget.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimitExceeded,
}

impl EvalError {
    /// A failure with a text made for it.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed(text.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::Failed(Cow::Borrowed("no such overload"))
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }

    /// Whether `&&` and `||` may pass over it.
    pub(crate) fn is_absorbable(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// One thing wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where: a number of characters from the start; `None` when it concerns the text as a whole.
    pub offset: Option<u32>,
    /// What.
    pub message: String,
}

/// Why a text is no program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    stage: &'static str,
    issues: String,
}

impl CompileError {
    pub(crate) fn new(source: &Source<'_>, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.offset);
        let shown: Vec<String> = issues.iter().map(|issue| source.show(issue)).collect();
        Self { stage: "compilation failed", issues: shown.join("\n") }
    }

    /// A checked expression of which no program can be made: a constant that cannot be converted, a bad pattern.
    pub(crate) fn instantiation(why: &str) -> Self {
        Self { stage: "program instantiation failed", issues: why.to_owned() }
    }

    /// The issues one after another, without the words `compilation failed: ` (or `program instantiation failed: `).
    pub fn issues(&self) -> &str {
        &self.issues
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.issues)
    }
}

impl std::error::Error for CompileError {}
