//! A checked tree to operations: names resolved, constants folded, patterns compiled.
//!
//! What a path costs depends on where it stands: upstream charges a path once for its root and once for each step, and
//! nothing for the root inside `has()` and in the branches of `?:`.

use crate::ast::{Element, Expr, Fold, FoldKind, Node, as_text};
use crate::checker::{Checked, Meaning};
use crate::collection::{Key, List, Map};
use crate::env::COMPOSED;
use crate::library::{self, Call, Function, Regex};
use crate::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An operation.
#[derive(Debug)]
pub(crate) enum Op {
    Const(Value<'static>),
    Variable {
        name: Arc<str>,
        charged: bool,
    },
    /// A macro's variable by its place on the stack.
    Local {
        place: usize,
        charged: bool,
    },
    /// A field of `variables`.
    Composed {
        name: Arc<str>,
        charged: bool,
    },
    /// `charged`: the operand is no path, so one begins here.
    Select {
        operand: Box<Op>,
        field: Arc<str>,
        optional: bool,
        charged: bool,
    },
    Has {
        operand: Box<Op>,
        field: Arc<str>,
    },
    Index {
        operand: Box<Op>,
        index: Box<Op>,
        optional: bool,
        charged: bool,
    },
    And(Vec<Op>),
    Or(Vec<Op>),
    Conditional(Box<[Op; 3]>),
    /// `x in [constants]`, which upstream makes a set of.
    InConstants {
        value: Box<Op>,
        list: List<'static>,
    },
    Call(Box<Invocation>),
    /// `or` and `orValue`: the second operand is looked at only when it is needed.
    OptionalOr {
        first: Box<Op>,
        second: Box<Op>,
        value: bool,
    },
    List(Vec<(Op, bool)>),
    Map(Vec<(Op, Op, bool)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Op, bool)>,
    },
    Fold(Box<FoldOp>),
}

/// A call of a function.
pub(crate) struct Invocation {
    pub function: &'static str,
    pub rows: Vec<&'static Function>,
    /// The call that serves whatever the arguments' types are.
    pub direct: Option<Call>,
    pub args: Vec<Op>,
}

impl std::fmt::Debug for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.function, self.args)
    }
}

/// A macro that binds variables.
#[derive(Debug)]
pub(crate) struct FoldOp {
    pub kind: FoldKind,
    pub range: Op,
    pub two: bool,
    pub filter: Option<Op>,
    pub body: Op,
}

/// Functions whose call on a constant is made once, at compile time.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];
/// Functions whose second argument is a pattern.
const PATTERNS: [&str; 3] = ["matches", "find", "findAll"];

pub(crate) struct Planner<'c> {
    checked: &'c Checked,
    locals: Vec<String>,
    /// The variables that are referred to.
    pub used: Vec<Arc<str>>,
    /// Why no program can be made.
    pub problem: Option<String>,
}

impl<'c> Planner<'c> {
    pub fn new(checked: &'c Checked) -> Self {
        Self { checked, locals: Vec::new(), used: Vec::new(), problem: None }
    }

    fn meaning(&self, node: &Node) -> &'c Meaning {
        &self.checked.meanings[node.id as usize]
    }

    pub fn plan(&mut self, node: &Node) -> Op {
        match (self.meaning(node), &*node.expr) {
            (Meaning::Variable(name), _) => self.variable(name),
            (Meaning::Type(name), _) => Op::Const(Value::Type(Arc::clone(name))),
            (Meaning::Local, Expr::Ident(name)) => {
                let place = self.locals.iter().rposition(|local| local == name).unwrap_or(0);
                Op::Local { place, charged: true }
            }
            (_, Expr::Literal(value)) => Op::Const(value.clone()),
            (_, Expr::Ident(name)) => self.variable(&Arc::from(name.strip_prefix('.').unwrap_or(name))),
            (_, Expr::Select { operand, field, test }) => self.select(operand, field, *test),
            (meaning, Expr::Call { function, target, args }) => self.call(meaning, function, target.as_ref(), args),
            (_, Expr::List(elements)) => self.list(elements),
            (_, Expr::Map(entries)) => {
                let planned = entries.iter().map(|e| (self.plan(&e.key), self.plan(&e.value), e.optional)).collect();
                constant_map(planned)
            }
            (_, Expr::Struct { name, fields }) => {
                let planned =
                    fields.iter().map(|f| (Arc::from(f.name.as_str()), self.plan(&f.value), f.optional)).collect();
                Op::Struct { name: name.as_str().into(), fields: planned }
            }
            (_, Expr::Fold(fold)) => self.fold(fold),
        }
    }

    fn variable(&mut self, name: &Arc<str>) -> Op {
        if !self.used.contains(name) {
            self.used.push(Arc::clone(name));
        }
        Op::Variable { name: Arc::clone(name), charged: true }
    }

    fn select(&mut self, operand: &Node, field: &str, test: bool) -> Op {
        let mut op = self.plan(operand);
        if test {
            uncharge(&mut op);
            return Op::Has { operand: Box::new(op), field: field.into() };
        }
        if matches!(&op, Op::Variable { name, .. } if &**name == COMPOSED) {
            return Op::Composed { name: field.into(), charged: true };
        }
        let charged = !is_path(&op);
        Op::Select { operand: Box::new(op), field: field.into(), optional: false, charged }
    }

    fn call(&mut self, meaning: &Meaning, function: &str, target: Option<&Node>, args: &[Node]) -> Op {
        match (function, args) {
            ("_?._", [operand, field]) => {
                let op = self.plan(operand);
                let charged = !is_path(&op);
                return Op::Select {
                    operand: Box::new(op),
                    field: as_text(field).unwrap_or_default().into(),
                    optional: true,
                    charged,
                };
            }
            ("_[_]" | "_[?_]", [operand, index]) => {
                let op = self.plan(operand);
                let mut index = self.plan(index);
                uncharge(&mut index);
                let charged = !is_path(&op);
                return Op::Index {
                    operand: Box::new(op),
                    index: Box::new(index),
                    optional: function == "_[?_]",
                    charged,
                };
            }
            _ => {}
        }
        let mut planned: Vec<Op> = match meaning {
            Meaning::Qualified(_) => args.iter().map(|arg| self.plan(arg)).collect(),
            _ => target.into_iter().chain(args).map(|arg| self.plan(arg)).collect(),
        };
        match function {
            "_&&_" => return Op::And(planned),
            "_||_" => return Op::Or(planned),
            "_?_:_" => {
                planned[1..].iter_mut().for_each(uncharge);
                return match <[Op; 3]>::try_from(planned) {
                    Ok(three) => Op::Conditional(Box::new(three)),
                    Err(_) => Op::Const(Value::Null),
                };
            }
            _ => {}
        }
        let rows = match meaning {
            Meaning::Call(rows) | Meaning::Qualified(rows) => rows.clone(),
            _ => Vec::new(),
        };
        self.invocation(rows, planned)
    }

    fn invocation(&mut self, rows: Vec<&'static Function>, mut args: Vec<Op>) -> Op {
        let Some(first) = rows.first() else { return Op::Const(Value::Null) };
        let function = first.overload.function;
        if let Some(op) = special(function, &mut args) {
            return op;
        }
        if PATTERNS.contains(&function) {
            self.compile_pattern(&mut args);
        }
        if let Some(value) = self.converted(function, &rows, &args) {
            return Op::Const(value);
        }
        let direct = first.overload.dynamic.then_some(first.overload.call);
        Op::Call(Box::new(Invocation { function, rows, direct, args }))
    }

    fn compile_pattern(&mut self, args: &mut [Op]) {
        let Some(Op::Const(pattern)) = args.get_mut(1) else { return };
        match pattern.as_str().map(Regex::new) {
            Some(Ok(regex)) => *pattern = Value::opaque(regex),
            Some(Err(why)) => self.problem = Some(format!("error parsing regexp: {why}")),
            None => {}
        }
    }

    /// The result of a conversion of a constant.
    fn converted(&mut self, function: &str, rows: &[&'static Function], args: &[Op]) -> Option<Value<'static>> {
        let [Op::Const(value)] = args else { return None };
        let row = rows.iter().find(|row| CONVERSIONS.contains(&function) && value.fits(&row.signature.params[0]))?;
        match (row.overload.call)(std::slice::from_ref(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem = Some(error.to_string());
                None
            }
        }
    }

    fn list(&mut self, elements: &[Element]) -> Op {
        let planned: Vec<(Op, bool)> = elements.iter().map(|e| (self.plan(&e.value), e.optional)).collect();
        if planned.iter().all(|(op, optional)| !optional && matches!(op, Op::Const(_))) {
            let values =
                planned.into_iter().filter_map(|(op, _)| if let Op::Const(value) = op { Some(value) } else { None });
            return Op::Const(Value::list(values.collect()));
        }
        Op::List(planned)
    }

    fn fold(&mut self, fold: &Fold) -> Op {
        let range = self.plan(&fold.range);
        let before = self.locals.len();
        self.locals.push(fold.var.clone());
        self.locals.extend(fold.var2.clone());
        let filter = fold.filter.as_ref().map(|filter| self.plan(filter));
        let body = self.plan(&fold.body);
        self.locals.truncate(before);
        Op::Fold(Box::new(FoldOp { kind: fold.kind, range, two: fold.var2.is_some(), filter, body }))
    }
}

/// Whether a step may be added to the operation without a new path.
fn is_path(op: &Op) -> bool {
    matches!(
        op,
        Op::Variable { .. }
            | Op::Local { .. }
            | Op::Composed { .. }
            | Op::Select { .. }
            | Op::Index { .. }
            | Op::Conditional(_)
            | Op::Has { .. }
    )
}

/// Takes the cost of a path's root away.
fn uncharge(op: &mut Op) {
    match op {
        Op::Variable { charged, .. } | Op::Local { charged, .. } | Op::Composed { charged, .. } => *charged = false,
        Op::Select { operand, charged, .. } | Op::Index { operand, charged, .. } => {
            if *charged {
                *charged = false;
            } else {
                uncharge(operand);
            }
        }
        _ => {}
    }
}

fn constant_map(entries: Vec<(Op, Op, bool)>) -> Op {
    let mut constants = BTreeMap::new();
    for (key, value, optional) in &entries {
        let (Op::Const(key), Op::Const(value), false) = (key, value, *optional) else { return Op::Map(entries) };
        let Some(key) = Key::new(key) else { return Op::Map(entries) };
        constants.insert(key, value.clone());
    }
    Op::Const(Value::Map(Map::values(constants)))
}

/// Functions that are evaluated in a way of their own.
fn special(function: &str, args: &mut Vec<Op>) -> Option<Op> {
    match (function, args.as_slice()) {
        ("@in", [_, Op::Const(Value::List(list))])
            if !list.is_empty() && list.iter().flatten().all(|v| is_scalar(&v)) =>
        {
            let list = list.clone();
            args.truncate(1);
            args.pop().map(|value| Op::InConstants { value: Box::new(value), list })
        }
        ("or" | "orValue", [_, _]) => {
            let second = args.pop().map(Box::new)?;
            let first = args.pop().map(Box::new)?;
            Some(Op::OptionalOr { first, second, value: function == "orValue" })
        }
        _ => None,
    }
}

fn is_scalar(value: &Value<'_>) -> bool {
    matches!(value, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_))
}

/// Whether all rows charge alike, so that the rule is known before the arguments are.
pub(crate) fn common_cost(rows: &[&'static Function]) -> crate::cost::Cost {
    match rows {
        [first, rest @ ..] if rest.iter().all(|row| row.overload.cost == first.overload.cost) => first.overload.cost,
        _ => crate::cost::Cost::One,
    }
}

/// The row for arguments whose types are known now.
pub(crate) fn row_for<'r>(rows: &'r [&'static Function], args: &[Value<'_>]) -> Option<&'r &'static Function> {
    rows.iter().find(|row| {
        row.signature.params.len() == args.len()
            && row.signature.params.iter().zip(args).all(|(param, arg)| arg.fits(param))
    })
}

/// The error of a call that no row fits.
pub(crate) fn unfit(invocation: &Invocation, args: &[Value<'_>]) -> crate::EvalError {
    library::no_such_overload(invocation.function, args)
}
