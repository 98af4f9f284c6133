//! The limits Kubernetes sets on expressions.

/// The longest request body, which bounds what an unbounded schema may hold.
pub const MAX_REQUEST_SIZE_BYTES: i64 = 3 * 1024 * 1024;
/// The cost of one evaluation, at most.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// The cost of all rules of one object of a custom resource.
pub const RUNTIME_CEL_COST_BUDGET: u64 = 10_000_000;
/// The cost of all match conditions of a webhook for one request.
pub const RUNTIME_CEL_COST_BUDGET_MATCH_CONDITIONS: u64 = 2_500_000;
/// After so many steps of loops an evaluation looks whether it should stop.
pub const CHECK_FREQUENCY: u32 = 100;
/// The longest source text in characters.
pub const MAX_EXPRESSION_CODE_POINTS: usize = 100_000;
/// How deep an expression may nest.
pub const MAX_RECURSION_DEPTH: usize = 250;
