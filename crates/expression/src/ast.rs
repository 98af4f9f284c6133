//! The tree of an expression as written, macros already recognised.

use crate::value::Value;

/// A node: what it is, its number in the tree, and where in the text its errors are shown.
#[derive(Debug)]
pub(crate) struct Node {
    pub id: u32,
    pub at: u32,
    /// How many nested operations are below, for the limit on recursion.
    pub height: u16,
    pub expr: Box<Expr>,
}

/// The kinds of nodes.
#[derive(Debug)]
pub(crate) enum Expr {
    Literal(Value<'static>),
    Ident(String),
    /// `operand.field`; `test` inside `has()`.
    Select {
        operand: Node,
        field: String,
        test: bool,
    },
    /// A function by its name, operators as `_+_`.
    Call {
        function: String,
        target: Option<Node>,
        args: Vec<Node>,
    },
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<Field>,
    },
    Fold(Fold),
}

/// An element of a list; `[?x]` is optional.
#[derive(Debug)]
pub(crate) struct Element {
    pub value: Node,
    pub optional: bool,
}

/// An entry of a map.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    pub at: u32,
    pub name: String,
    pub value: Node,
    pub optional: bool,
}

/// A macro that binds variables.
#[derive(Debug)]
pub(crate) struct Fold {
    pub kind: FoldKind,
    /// What is gone through, or the value that is bound.
    pub range: Node,
    pub var: String,
    /// The second variable of two-variable comprehensions.
    pub var2: Option<String>,
    /// The condition of `map` with three arguments and of the `transform` macros.
    pub filter: Option<Node>,
    pub body: Node,
}

/// The macros that bind variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// `map`, `transformList`
    Map,
    Filter,
    TransformMap,
    TransformMapEntry,
    /// `cel.bind`
    Bind,
    OptMap,
    OptFlatMap,
    SortBy,
}

/// The text constant a node is.
pub(crate) fn as_text(node: &Node) -> Option<&str> {
    if let Expr::Literal(value) = &*node.expr { value.as_str() } else { None }
}

/// `a.b.c` as one name.
pub(crate) fn qualified_name(node: &Node) -> Option<String> {
    match &*node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select { operand, field, test: false } => {
            qualified_name(operand).map(|prefix| format!("{prefix}.{field}"))
        }
        _ => None,
    }
}
