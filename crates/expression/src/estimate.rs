//! What an expression may cost, from the bounds of its declared types.
//!
//! Follows the declared types along paths (`self.items[0].name`), and sizes through literals, calls and macros. What
//! upstream takes for the declared type of something that is on no path (the root's) is kept, for equal results.

use crate::ast::{Expr, Fold, FoldKind, Node};
use crate::checker::{Checked, Meaning};
use crate::cost::{LIST, MAP, SELECT, STRUCT};
use crate::decl::{DeclType, Kind};
use crate::env::{COMPOSED, Env, Named};
use crate::estimate_call::{self, Known};
use crate::library::Function;
use crate::size::CostRange as Range;
use crate::types::Type;
use std::sync::Arc;

/// Where a value is found in the declared types.
#[derive(Clone, Debug)]
pub(crate) enum Path {
    /// On no path.
    None,
    /// Of this declared type.
    At(Arc<DeclType>),
    /// On a path that the declared types do not know.
    Lost,
}

/// The sizes of a list's or a map's keys and values.
#[derive(Clone, Copy, Debug)]
struct Entries {
    list: bool,
    key: Range,
    value: Range,
}

#[derive(Clone, Debug)]
struct Facts {
    path: Path,
    size: Option<Range>,
    entries: Option<Entries>,
}

struct Local {
    name: String,
    facts: Facts,
}

/// The range of a tree's cost, and the declared type of its values.
pub(crate) fn estimate(root: &Node, checked: &Checked, env: &Env) -> (Range, Option<Arc<DeclType>>) {
    let origin = match env.lookup("self") {
        Some(Named::Variable(_, Some(decl), _)) => Path::At(decl),
        _ => Path::Lost,
    };
    let facts = vec![Facts { path: Path::None, size: None, entries: None }; checked.types.len()];
    let mut estimator = Estimator { checked, env, origin, facts, locals: Vec::new() };
    let range = estimator.cost(root);
    let decl = match estimator.facts[root.id as usize].path.clone() {
        Path::At(decl) if decl.cel_type() == checked.types[root.id as usize] => Some(decl),
        _ => None,
    };
    (range, decl)
}

struct Estimator<'c> {
    checked: &'c Checked,
    env: &'c Env,
    /// The declared type of `self`.
    origin: Path,
    facts: Vec<Facts>,
    locals: Vec<Local>,
}

impl Estimator<'_> {
    fn t(&self, node: &Node) -> &Type {
        &self.checked.types[node.id as usize]
    }

    fn facts(&mut self, node: &Node) -> &mut Facts {
        &mut self.facts[node.id as usize]
    }

    fn cost(&mut self, node: &Node) -> Range {
        match &*node.expr {
            Expr::Literal(_) => Range::default(),
            Expr::Ident(name) => self.ident(node, name.strip_prefix('.').unwrap_or(name)),
            Expr::Select { operand, field, test } => self.select(node, operand, field, *test),
            Expr::Call { function, target, args } => self.call(node, function, target.as_ref(), args),
            Expr::List(elements) => {
                let parts: Vec<&Node> = elements.iter().map(|e| &e.value).collect();
                let (cost, value) = self.all(&parts);
                self.facts(node).entries = Some(Entries { list: true, key: Range::fixed(1), value });
                cost + Range::fixed(LIST)
            }
            Expr::Map(entries) => {
                let (keys, key) = self.all(&entries.iter().map(|e| &e.key).collect::<Vec<_>>());
                let (values, value) = self.all(&entries.iter().map(|e| &e.value).collect::<Vec<_>>());
                self.facts(node).entries = Some(Entries { list: false, key, value });
                keys + values + Range::fixed(MAP)
            }
            Expr::Struct { fields, .. } => {
                let parts: Vec<&Node> = fields.iter().map(|f| &f.value).collect();
                self.all(&parts).0 + Range::fixed(STRUCT)
            }
            Expr::Fold(fold) => self.fold(node, fold),
        }
    }

    /// The cost of all nodes together, and the range of their sizes.
    fn all(&mut self, nodes: &[&Node]) -> (Range, Range) {
        let mut cost = Range::default();
        let mut size: Option<Range> = None;
        for node in nodes {
            cost = cost + self.cost(node);
            let one = self.size_or_unknown(node);
            size = Some(size.map_or(one, |size| size.union(one)));
        }
        (cost, size.unwrap_or_default())
    }

    fn ident(&mut self, node: &Node, name: &str) -> Range {
        let path = match self.locals.iter().rev().find(|local| local.name == name) {
            Some(local) => local.facts.path.clone(),
            None => match self.env.lookup(name) {
                Some(Named::Variable(_, Some(decl), _)) => Path::At(decl),
                _ => self.origin.clone(),
            },
        };
        self.facts(node).path = path;
        Range::fixed(SELECT)
    }

    fn select(&mut self, node: &Node, operand: &Node, field: &str, test: bool) -> Range {
        if let Meaning::Variable(_) | Meaning::Type(_) = &self.checked.meanings[node.id as usize] {
            self.facts(node).path = self.origin.clone();
            return Range::fixed(SELECT);
        }
        let cost = self.cost(operand);
        if test {
            return cost;
        }
        let composed = matches!(&*operand.expr, Expr::Ident(name) if name == COMPOSED)
            .then(|| self.env.composed_decl(field).cloned());
        let path = match composed {
            Some(decl) => decl.map_or(Path::Lost, Path::At),
            None => self.step(self.facts[operand.id as usize].path.clone(), |decl| {
                decl.field(field).filter(|_| matches!(decl.kind, Kind::Object(_)))
            }),
        };
        self.facts(node).path = path;
        let charged = matches!(self.t(operand), Type::Map(_) | Type::Object(_));
        cost + Range::fixed(if charged { SELECT } else { 0 })
    }

    /// One step along a path. What is on no path counts as on the root's.
    fn step(&self, path: Path, next: impl FnOnce(&DeclType) -> Option<&Arc<DeclType>>) -> Path {
        match path {
            Path::None => self.origin.clone(),
            Path::Lost => Path::Lost,
            Path::At(decl) => next(&decl).map_or(Path::Lost, |decl| Path::At(Arc::clone(decl))),
        }
    }

    fn call(&mut self, node: &Node, function: &str, target: Option<&Node>, args: &[Node]) -> Range {
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let sum = costs.iter().fold(Range::default(), |sum, cost| sum + *cost);
        match (function, costs.as_slice()) {
            // Of operands that decide early only the first is sure to be looked at.
            ("_&&_" | "_||_", [first, ..]) => return Range { min: first.min, max: sum.max },
            ("_?_:_", [condition, yes, no]) => {
                let size = self.size_or_unknown(&args[1]).union(self.size_or_unknown(&args[2]));
                let entries = union(self.entries(&args[1]), self.entries(&args[2]));
                *self.facts(node) = Facts { path: Path::None, size: Some(size), entries };
                return *condition + yes.union(*no);
            }
            ("dyn", [cost]) => {
                let (size, entries) = (self.size(&args[0]), self.entries(&args[0]));
                *self.facts(node) = Facts { path: Path::None, size, entries };
                return *cost + Range::fixed(1);
            }
            ("_?._", _) => return sum + Range::fixed(1),
            _ => {}
        }
        let rows = match &self.checked.meanings[node.id as usize] {
            Meaning::Call(rows) => rows.clone(),
            Meaning::Qualified(rows) => return sum + self.rows(node, rows, &args.iter().collect::<Vec<_>>()),
            _ => return sum,
        };
        let target_cost = target.map_or(Range::default(), |target| self.cost(target));
        let parts: Vec<&Node> = target.into_iter().chain(args).collect();
        sum + target_cost + self.rows(node, &rows, &parts)
    }

    /// The range over all rows that may apply.
    fn rows(&mut self, node: &Node, rows: &[&'static Function], parts: &[&Node]) -> Range {
        let known: Vec<Known> = parts.iter().map(|part| self.known(part)).collect();
        let mut total: Option<Range> = None;
        let mut size: Option<Range> = None;
        for row in rows {
            let estimated = estimate_call::estimate(row, &known);
            total = Some(total.map_or(estimated.cost, |total| total.union(estimated.cost)));
            if let Some(result) = estimated.size {
                size = Some(size.map_or(result, |size| size.union(result)));
            }
            match (row.overload.signature, parts.first()) {
                ("_[_](list(A), int) -> A" | "_[_](map(A, B), A) -> B", Some(operand)) => {
                    size = self.entries(operand).map(|e| e.value);
                    let path = self.step(self.facts[operand.id as usize].path.clone(), DeclType::element);
                    self.facts(node).path = path;
                }
                (
                    "_+_(list(A), list(A)) -> list(A)" | "_+_(string, string) -> string" | "_+_(bytes, bytes) -> bytes",
                    _,
                ) => {
                    let entries = parts.iter().map(|part| self.entries(part)).reduce(union).flatten();
                    self.facts(node).entries = entries.or(self.facts[node.id as usize].entries);
                }
                _ => {}
            }
            size = size.or_else(|| self.size(node));
        }
        if size.is_some() {
            self.facts(node).size = size;
        }
        total.unwrap_or_default()
    }

    fn known(&mut self, node: &Node) -> Known {
        let size = self.size_or_unknown(node);
        let literal = if let Expr::Literal(value) = &*node.expr { value.as_int() } else { None };
        let element = match &self.facts[node.id as usize].path {
            Path::None => None,
            path => Some(self.step(path.clone(), DeclType::element)),
        };
        let element = match element {
            Some(Path::At(decl)) => bound(&decl),
            _ => Range::UNKNOWN,
        };
        Known { size, element, literal, r#type: self.t(node).clone() }
    }

    fn size(&mut self, node: &Node) -> Option<Range> {
        if let Some(size) = self.facts[node.id as usize].size {
            return Some(size);
        }
        let exact = match &*node.expr {
            Expr::Literal(value @ (crate::Value::String(_) | crate::Value::Bytes(_))) => Some(value.size()),
            Expr::Literal(_) => Some(1),
            Expr::List(elements) => Some(elements.len() as u64),
            Expr::Map(entries) => Some(entries.len() as u64),
            _ => None,
        };
        if let Some(exact) = exact {
            return Some(Range::fixed(exact));
        }
        if let Path::At(decl) = &self.facts[node.id as usize].path {
            let size = bound(decl);
            self.facts(node).size = Some(size);
            return Some(size);
        }
        if is_scalar(self.t(node)) {
            return Some(Range::fixed(1));
        }
        self.local(node).and_then(|facts| facts.size)
    }

    fn size_or_unknown(&mut self, node: &Node) -> Range {
        self.size(node).unwrap_or(Range::UNKNOWN)
    }

    fn entries(&self, node: &Node) -> Option<Entries> {
        self.facts[node.id as usize].entries.or_else(|| self.local(node).and_then(|facts| facts.entries))
    }

    fn local(&self, node: &Node) -> Option<&Facts> {
        let Expr::Ident(name) = &*node.expr else { return None };
        self.locals.iter().rev().find(|local| local.name == *name).map(|local| &local.facts)
    }

    fn push(&mut self, name: &str, path: Path, size: Option<Range>, entries: Option<Entries>) {
        self.locals.push(Local { name: name.to_owned(), facts: Facts { path, size, entries } });
    }

    fn fold(&mut self, node: &Node, fold: &Fold) -> Range {
        let range = self.cost(&fold.range);
        let before = self.locals.len();
        let cost = match fold.kind {
            FoldKind::Bind => {
                let (size, entries) = (self.size(&fold.range), self.entries(&fold.range));
                let path = self.facts[fold.range.id as usize].path.clone();
                self.push(&fold.var, path, size, entries);
                // Upstream makes a loop over an empty list of it, and pays for the list.
                let body = self.cost(&fold.body);
                let (size, entries) = (self.size(&fold.body), self.entries(&fold.body));
                *self.facts(node) = Facts { path: Path::None, size, entries };
                range + body + Range::fixed(LIST)
            }
            FoldKind::OptMap | FoldKind::OptFlatMap => {
                self.push(&fold.var, Path::None, None, None);
                let of = u64::from(fold.kind == FoldKind::OptMap);
                let some = self.cost(&fold.body) + range + Range::fixed(LIST + 1 + of);
                range + Range::fixed(1) + some.union(Range::fixed(1))
            }
            FoldKind::SortBy => {
                let looped = self.looped(node, fold);
                let size = self.size_or_unknown(&fold.range);
                let texts = matches!(self.t(&fold.body), Type::String | Type::Bytes);
                let sort = (size * size).part(if texts { 2.1 } else { 2.0 }) + Range::fixed(LIST + 1);
                range + looped + sort + Range::fixed(LIST + 2)
            }
            _ => range + self.looped(node, fold),
        };
        self.locals.truncate(before);
        cost
    }

    /// The loop of a macro without what is gone through.
    fn looped(&mut self, node: &Node, fold: &Fold) -> Range {
        self.bind_range(fold);
        let filter = fold.filter.as_ref().map(|filter| self.cost(filter));
        let body = self.cost(&fold.body);
        let body_size = self.size_or_unknown(&fold.body);
        let count = self.size_or_unknown(&fold.range);
        let one = Range::fixed;
        // What the accumulator starts as, what each step costs, what the result costs.
        let (start, step, result) = match fold.kind {
            FoldKind::All => (0, one(2) + Range::new(1, body.max.saturating_add(1)), 1),
            FoldKind::Exists => (0, one(3) + Range::new(1, body.max.saturating_add(1)), 1),
            FoldKind::ExistsOne => (0, body + Range::new(1, 2), 2),
            FoldKind::Filter => (LIST, body + Range::new(1, LIST + 3), 1),
            FoldKind::TransformMap => (MAP, conditional(filter, body + one(3)), 1),
            FoldKind::TransformMapEntry => (MAP, conditional(filter, body + one(2)), 1),
            _ => (LIST, conditional(filter, body + one(LIST + 2)), 1),
        };
        let element = match fold.kind {
            FoldKind::Filter => self.locals.last().and_then(|local| self.var_size(local)),
            _ => Some(body_size),
        };
        let facts = self.facts(node);
        match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => facts.size = Some(one(1)),
            _ => facts.size = Some(count),
        }
        if matches!(fold.kind, FoldKind::Map | FoldKind::Filter | FoldKind::SortBy) {
            let value = Range::new(0, element.unwrap_or(Range::UNKNOWN).max);
            facts.entries = Some(Entries { list: true, key: one(1), value });
        }
        one(start) + count * step + one(result)
    }

    fn var_size(&self, local: &Local) -> Option<Range> {
        match &local.facts.path {
            Path::At(decl) => Some(bound(decl)),
            _ => local.facts.size,
        }
    }

    fn bind_range(&mut self, fold: &Fold) {
        let entries = self.entries(&fold.range);
        let list = entries.map_or(matches!(self.t(&fold.range), Type::List(_)), |entries| entries.list);
        let path = self.facts[fold.range.id as usize].path.clone();
        let element = self.step(path.clone(), DeclType::element);
        let key = match path {
            Path::None => self.origin.clone(),
            // Keys are texts of no declared length.
            Path::At(decl) if !list && matches!(decl.kind, Kind::Map(_)) => Path::At(DeclType::key()),
            _ => Path::Lost,
        };
        let (key_size, value_size) = (entries.map(|e| e.key), entries.map(|e| e.value));
        match &fold.var2 {
            Some(var2) => {
                self.push(&fold.var, key, key_size, None);
                self.push(var2, element, value_size, None);
            }
            None if list => self.push(&fold.var, element, value_size, None),
            None => self.push(&fold.var, key, key_size, None),
        }
    }
}

fn conditional(filter: Option<Range>, step: Range) -> Range {
    filter.map_or(step, |filter| filter + step.union(Range::fixed(1)))
}

fn bound(decl: &DeclType) -> Range {
    Range::new(0, u64::try_from(decl.max_elements).unwrap_or(0))
}

fn union(a: Option<Entries>, b: Option<Entries>) -> Option<Entries> {
    let (a, b) = (a?, b?);
    Some(Entries { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
}

fn is_scalar(t: &Type) -> bool {
    match t {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(t) => is_scalar(t),
        _ => false,
    }
}
