//! Macros: calls that the parser turns into something else.

use crate::ast::{Expr, Fold, FoldKind, Node};

/// What became of a call.
pub(crate) enum Expansion {
    /// It is no macro: target and arguments are given back.
    Call(Option<Node>, Vec<Node>),
    Expanded(Expr),
    /// A macro with unfit arguments.
    Wrong {
        at: u32,
        message: String,
    },
}

/// Whether the environment has `cel.bind`.
pub(crate) struct Macros {
    pub bind: bool,
}

/// Member macros: name, number of arguments, kind.
const MEMBERS: [(&str, usize, FoldKind); 20] = [
    ("all", 2, FoldKind::All),
    ("exists", 2, FoldKind::Exists),
    ("exists_one", 2, FoldKind::ExistsOne),
    ("existsOne", 2, FoldKind::ExistsOne),
    ("map", 2, FoldKind::Map),
    ("map", 3, FoldKind::Map),
    ("filter", 2, FoldKind::Filter),
    ("optMap", 2, FoldKind::OptMap),
    ("optFlatMap", 2, FoldKind::OptFlatMap),
    ("sortBy", 2, FoldKind::SortBy),
    ("all", 3, FoldKind::All),
    ("exists", 3, FoldKind::Exists),
    ("existsOne", 3, FoldKind::ExistsOne),
    ("exists_one", 3, FoldKind::ExistsOne),
    ("transformList", 3, FoldKind::Map),
    ("transformList", 4, FoldKind::Map),
    ("transformMap", 3, FoldKind::TransformMap),
    ("transformMap", 4, FoldKind::TransformMap),
    ("transformMapEntry", 3, FoldKind::TransformMapEntry),
    ("transformMapEntry", 4, FoldKind::TransformMapEntry),
];

impl Macros {
    pub fn expand(&self, function: &str, target: Option<Node>, mut args: Vec<Node>) -> Expansion {
        match (&target, function, args.len()) {
            (None, "has", 1) => return args.pop().map_or_else(|| Expansion::Call(None, Vec::new()), has),
            (None, ..) => return Expansion::Call(target, args),
            (Some(cel), "bind", 3) if self.bind && is_ident(cel, "cel") => return bind(args),
            _ => {}
        }
        let found = MEMBERS.iter().find(|(name, count, _)| *name == function && *count == args.len());
        match (found, target) {
            (Some((name, _, kind)), Some(target)) => fold(name, *kind, target, args),
            (_, target) => Expansion::Call(target, args),
        }
    }
}

fn is_ident(node: &Node, name: &str) -> bool {
    matches!(&*node.expr, Expr::Ident(ident) if ident == name)
}

fn has(arg: Node) -> Expansion {
    let at = arg.at;
    match *arg.expr {
        Expr::Select { operand, field, .. } => Expansion::Expanded(Expr::Select { operand, field, test: true }),
        _ => Expansion::Wrong { at, message: "invalid argument to has() macro".into() },
    }
}

fn bind(args: Vec<Node>) -> Expansion {
    let Ok([name, range, body]) = <[Node; 3]>::try_from(args) else { return Expansion::Call(None, Vec::new()) };
    match simple_name(&name) {
        Some(var) => {
            Expansion::Expanded(Expr::Fold(Fold { kind: FoldKind::Bind, range, var, var2: None, filter: None, body }))
        }
        None => {
            Expansion::Wrong { at: name.at, message: "cel.bind() variable names must be simple identifiers".into() }
        }
    }
}

fn simple_name(node: &Node) -> Option<String> {
    if let Expr::Ident(name) = &*node.expr { Some(name.clone()) } else { None }
}

fn fold(name: &str, kind: FoldKind, range: Node, args: Vec<Node>) -> Expansion {
    let two = name.starts_with("transform") || (args.len() == 3 && name != "map");
    let unfit = match name {
        "map" | "filter" | "sortBy" => "argument is not an identifier",
        "optMap" => "optMap() variable name must be a simple identifier",
        "optFlatMap" => "optFlatMap() variable name must be a simple identifier",
        _ => "argument must be a simple name",
    };
    let wrong = |at: u32, message: &str| Expansion::Wrong { at, message: message.into() };
    let mut args = args.into_iter();
    let mut names = Vec::new();
    for arg in args.by_ref().take(if two { 2 } else { 1 }) {
        match simple_name(&arg) {
            Some(var) if var == "__result__" || var == "@result" => {
                return wrong(arg.at, "iteration variable overwrites accumulator variable");
            }
            Some(var) if names.contains(&var) => return wrong(arg.at, &format!("duplicate variable name: {var}")),
            Some(var) => names.push(var),
            None => return wrong(arg.at, unfit),
        }
    }
    let mut rest: Vec<Node> = args.collect();
    let body = rest.pop();
    let (var2, var) = if two { (names.pop(), names.pop()) } else { (None, names.pop()) };
    match (var, body) {
        (Some(var), Some(body)) => {
            Expansion::Expanded(Expr::Fold(Fold { kind, range, var, var2, filter: rest.pop(), body }))
        }
        _ => Expansion::Call(Some(range), rest),
    }
}
