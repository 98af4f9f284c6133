//! The type check: gives every node a type and says what names and calls mean.

use crate::ast::{Element, Entry, Expr, Field, Fold, FoldKind, Node, as_text, qualified_name};
use crate::env::{Env, Named};
use crate::error::Issue;
use crate::library::{self, Function};
use crate::source::report;
use crate::types::Type;
use crate::unify::{Bound, most_general};
use std::sync::Arc;

/// What a node was found to mean.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    /// Nothing beyond its kind.
    Plain,
    /// A variable of the environment (also behind `a.b` when that is one name).
    Variable(Arc<str>),
    /// A variable of a macro.
    Local,
    /// The name of a type.
    Type(Arc<str>),
    /// A call: the rows that may apply.
    Call(Vec<&'static Function>),
    /// A call whose target is part of the function's name: `ip.isCanonical(x)`.
    Qualified(Vec<&'static Function>),
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.overload.signature)
    }
}

/// A checked tree's annotations, by the numbers of nodes.
pub(crate) struct Checked {
    pub types: Vec<Type>,
    pub meanings: Vec<Meaning>,
}

/// Checks a tree.
pub(crate) fn check(root: &Node, nodes: u32, env: &Env) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        bound: Bound::default(),
        types: vec![Type::Error; nodes as usize],
        meanings: vec![Meaning::Plain; nodes as usize],
        locals: Vec::new(),
        issues: Vec::new(),
    };
    checker.node(root);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let types = checker.types.iter().map(|t| checker.bound.resolve(t, true)).collect();
    Ok(Checked { types, meanings: checker.meanings })
}

struct Checker<'e> {
    env: &'e Env,
    bound: Bound,
    types: Vec<Type>,
    meanings: Vec<Meaning>,
    locals: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn error(&mut self, at: u32, message: String) {
        report(&mut self.issues, at, message);
    }

    fn undeclared(&mut self, at: u32, name: &str) -> Type {
        self.error(at, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    /// The type as error texts show it.
    fn show(&self, t: &Type) -> String {
        self.bound.resolve(t, true).to_string()
    }

    fn mean(&mut self, node: &Node, meaning: Meaning) {
        self.meanings[node.id as usize] = meaning;
    }

    fn node(&mut self, node: &Node) -> Type {
        let t = match &*node.expr {
            Expr::Literal(value) => literal(value),
            Expr::Ident(name) => self.ident(node, name),
            Expr::Select { operand, field, test } => self.select(node, operand, field, *test),
            Expr::Call { function, target, args } => self.call(node, function, target.as_ref(), args),
            Expr::List(elements) => self.list(elements),
            Expr::Map(entries) => self.map(entries),
            Expr::Struct { name, fields } => self.object(node, name, fields),
            Expr::Fold(fold) => self.fold(node, fold),
        };
        self.types[node.id as usize] = t.clone();
        t
    }

    fn ident(&mut self, node: &Node, name: &str) -> Type {
        if let Some((_, t)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            let t = t.clone();
            self.mean(node, Meaning::Local);
            return t;
        }
        match self.named(node, name.strip_prefix('.').unwrap_or(name)) {
            Some(t) => t,
            None => self.undeclared(node.at, name),
        }
    }

    fn named(&mut self, node: &Node, name: &str) -> Option<Type> {
        match self.env.lookup(name)? {
            Named::Variable(t, _, name) => {
                self.mean(node, Meaning::Variable(name));
                Some(t)
            }
            Named::Type(t, name) => {
                self.mean(node, Meaning::Type(name));
                Some(Type::Type(Arc::new(t)))
            }
        }
    }

    fn select(&mut self, node: &Node, operand: &Node, field: &str, test: bool) -> Type {
        if !test
            && let Some(name) = qualified_name(node)
            && self.is_global(operand)
            && let Some(t) = self.named(node, &name)
        {
            return t;
        }
        let t = self.select_field(node, operand, field, false);
        if test { Type::Bool } else { self.bound.resolve(&t, false) }
    }

    /// Whether a chain of names does not begin with a macro's variable.
    fn is_global(&self, node: &Node) -> bool {
        match &*node.expr {
            Expr::Ident(name) => !self.locals.iter().any(|(local, _)| local == name),
            Expr::Select { operand, .. } => self.is_global(operand),
            _ => false,
        }
    }

    fn select_field(&mut self, node: &Node, operand: &Node, field: &str, optional: bool) -> Type {
        let t = self.node(operand);
        let t = self.bound.resolve(&t, false);
        let (target, was_optional) = unwrap_optional(t);
        let result = match &target {
            Type::Map(kv) => kv.1.clone(),
            Type::Object(name) => match self.env.field(name, field) {
                Ok(Some(t)) => t,
                Ok(None) => {
                    self.error(node.at, format!("undefined field '{field}'"));
                    Type::Error
                }
                Err(()) => {
                    self.error(node.at, format!("unexpected failed resolution of '{name}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.bound.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn() {
                    let shown = self.show(other);
                    self.error(node.at, format!("type '{shown}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(result) } else { result }
    }

    fn call(&mut self, node: &Node, function: &str, target: Option<&Node>, args: &[Node]) -> Type {
        if function == "_?._" {
            return self.optional_select(node, args);
        }
        let arg_types: Vec<Type> = args.iter().map(|arg| self.node(arg)).collect();
        let Some(target) = target else {
            let Some(rows) = library::find(function, self.env.mutation) else {
                return self.undeclared(node.at, function);
            };
            if function == "_&&_" || function == "_||_" {
                return self.logic(args, &arg_types);
            }
            let (t, rows) = self.overload(node, function, rows, false, arg_types);
            self.mean(node, Meaning::Call(rows));
            return t;
        };
        if let Some(prefix) = qualified_name(target).filter(|_| self.is_global(target)) {
            let name = format!("{prefix}.{function}");
            if let Some(rows) = library::find(&name, self.env.mutation) {
                let (t, rows) = self.overload(node, &name, rows, false, arg_types);
                self.mean(node, Meaning::Qualified(rows));
                return t;
            }
        }
        let target_type = self.node(target);
        let Some(rows) = library::find(function, self.env.mutation) else { return self.undeclared(node.at, function) };
        let mut all = vec![target_type];
        all.extend(arg_types);
        let (t, rows) = self.overload(node, function, rows, true, all);
        self.mean(node, Meaning::Call(rows));
        t
    }

    fn optional_select(&mut self, node: &Node, args: &[Node]) -> Type {
        let [operand, field] = args else { return Type::Error };
        self.types[field.id as usize] = Type::String;
        let t = self.select_field(node, operand, as_text(field).unwrap_or_default(), true);
        // An optional field of an optional stays one optional.
        self.bound.resolve(&t, false)
    }

    fn logic(&mut self, args: &[Node], types: &[Type]) -> Type {
        let mut result = Type::Bool;
        for (arg, t) in args.iter().zip(types) {
            if !self.bound.assign(t, &Type::Bool) {
                let shown = self.show(t);
                self.error(arg.at, format!("expected type 'bool' but found '{shown}'"));
                result = Type::Error;
            }
        }
        result
    }

    fn overload(
        &mut self,
        node: &Node,
        name: &str,
        rows: &'static [Function],
        member: bool,
        types: Vec<Type>,
    ) -> (Type, Vec<&'static Function>) {
        let mut result: Option<Type> = None;
        let mut found = Vec::new();
        for row in rows.iter().filter(|row| row.signature.member == member && row.signature.params.len() == types.len())
        {
            let whole: Vec<&Type> = row.signature.params.iter().chain([&row.signature.result]).collect();
            let mut params = self.bound.instantiate(&whole);
            let Some(returns) = params.pop() else { continue };
            if self.bound.assign_all(&types, &params) {
                found.push(row);
                let returns = self.bound.resolve(&returns, false);
                result = Some(match result {
                    None => returns,
                    Some(before) if before == Type::Dyn || before == returns => before,
                    Some(_) => Type::Dyn,
                });
            }
        }
        let t = result.unwrap_or_else(|| {
            self.no_overload(node, name, member, &types);
            Type::Error
        });
        (t, found)
    }

    fn no_overload(&mut self, node: &Node, name: &str, member: bool, types: &[Type]) {
        let shown: Vec<String> = types.iter().map(|t| self.show(t)).collect();
        let applied = match (member, shown.split_first()) {
            (true, Some((target, args))) => format!("{target}.({})", args.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.error(node.at, format!("found no matching overload for '{name}' applied to '{applied}'"));
    }

    fn list(&mut self, elements: &[Element]) -> Type {
        let mut joined: Option<Type> = None;
        for element in elements {
            let t = self.node(&element.value);
            let t = self.optional_part(&element.value, t, element.optional);
            joined = Some(self.join(joined, t));
        }
        Type::list(joined.unwrap_or_else(|| self.bound.fresh()))
    }

    fn map(&mut self, entries: &[Entry]) -> Type {
        let (mut key, mut value) = (None, None);
        for entry in entries {
            let t = self.node(&entry.key);
            key = Some(self.join(key, t));
            let t = self.node(&entry.value);
            let t = self.optional_part(&entry.value, t, entry.optional);
            value = Some(self.join(value, t));
        }
        match (key, value) {
            (Some(key), Some(value)) => Type::map(key, value),
            _ => Type::map(self.bound.fresh(), self.bound.fresh()),
        }
    }

    /// The type inside the optional that `?` before an element or entry needs.
    fn optional_part(&mut self, node: &Node, t: Type, optional: bool) -> Type {
        if !optional {
            return t;
        }
        let (inner, was) = unwrap_optional(self.bound.resolve(&t, false));
        if !was && !inner.is_dyn() {
            let shown = self.show(&inner);
            self.error(node.at, format!("expected type 'optional_type({shown})' but found '{shown}'"));
        }
        inner
    }

    /// The type of a list's elements so far; `dyn` where they differ.
    fn join(&mut self, before: Option<Type>, t: Type) -> Type {
        let Some(before) = before else { return t };
        if self.bound.assign(&before, &t) {
            return most_general(&before, &t);
        }
        // Reported after the check, for lists that may not mix types.
        Type::Dyn
    }

    fn object(&mut self, node: &Node, name: &str, fields: &[Field]) -> Type {
        let known = self.env.lookup(name);
        let result = match known {
            Some(Named::Type(t @ Type::Object(_), _)) => t,
            Some(Named::Type(..)) => {
                self.error(node.at, format!("'{name}' is not a message type"));
                Type::Error
            }
            Some(Named::Variable(t, ..)) => {
                self.error(node.at, format!("'{}' is not a type", t.name()));
                Type::Error
            }
            None => return self.undeclared(node.at, name),
        };
        for field in fields {
            let t = self.node(&field.value);
            let t = self.optional_part(&field.value, t, field.optional);
            let declared = match self.env.field(name, &field.name) {
                Ok(Some(declared)) => declared,
                Ok(None) => {
                    self.error(field.at, format!("undefined field '{}'", field.name));
                    Type::Error
                }
                Err(()) => {
                    self.error(field.at, format!("unexpected failed resolution of '{name}'"));
                    Type::Error
                }
            };
            if !self.bound.assign(&declared, &t) {
                let (declared, t) = (self.show(&declared), self.show(&t));
                self.error(
                    field.at,
                    format!("expected type of field '{}' is '{declared}' but provided type is '{t}'", field.name),
                );
            }
        }
        result
    }

    fn fold(&mut self, node: &Node, fold: &Fold) -> Type {
        let range = self.node(&fold.range);
        let range = self.bound.resolve(&range, false);
        let before = self.locals.len();
        match fold.kind {
            FoldKind::Bind => self.locals.push((fold.var.clone(), range.clone())),
            FoldKind::OptMap | FoldKind::OptFlatMap => {
                let inner = self.has_value(node, &range);
                self.locals.push((fold.var.clone(), inner));
            }
            _ => self.bind_range(fold, &range),
        }
        let result = self.fold_body(node, fold, &range);
        self.locals.truncate(before);
        self.bound.resolve(&result, false)
    }

    /// `optMap` needs an optional, which its first call checks.
    fn has_value(&mut self, node: &Node, range: &Type) -> Type {
        let value = self.bound.fresh();
        if !self.bound.assign(range, &Type::optional(value.clone())) {
            self.no_overload(node, "hasValue", true, std::slice::from_ref(range));
            return Type::Error;
        }
        self.bound.resolve(&value, false)
    }

    fn bind_range(&mut self, fold: &Fold, range: &Type) {
        let (first, second) = match range {
            Type::List(element) if fold.var2.is_some() => (Type::Int, Type::clone(element)),
            Type::List(element) => (Type::clone(element), Type::Dyn),
            Type::Map(kv) => (kv.0.clone(), kv.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.bound.assign(&Type::Dyn, range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let shown = self.show(other);
                let message = format!(
                    "expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.error(fold.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        self.locals.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.locals.push((var2.clone(), second));
        }
    }

    fn fold_body(&mut self, node: &Node, fold: &Fold, range: &Type) -> Type {
        let filter = fold.filter.as_ref().map(|filter| (filter, self.node(filter)));
        let body = self.node(&fold.body);
        if let Some((_, t)) = filter {
            let accu =
                if fold.kind == FoldKind::Map { Type::list(body.clone()) } else { Type::map(Type::Dyn, Type::Dyn) };
            self.ternary(node, &t, &accu);
        }
        match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                self.logic(std::slice::from_ref(&fold.body), std::slice::from_ref(&body))
            }
            FoldKind::ExistsOne => {
                self.ternary(node, &body, &Type::Int);
                Type::Bool
            }
            FoldKind::Map => Type::list(body),
            FoldKind::Filter => {
                let element = self.locals.last().map_or(Type::Dyn, |(_, t)| t.clone());
                let element = Type::list(element);
                self.ternary(node, &body, &element);
                element
            }
            FoldKind::TransformMap => {
                let key = if let Type::Map(kv) = range {
                    kv.0.clone()
                } else if range.is_dyn() {
                    Type::Dyn
                } else {
                    Type::Int
                };
                Type::map(key, body)
            }
            FoldKind::TransformMapEntry => {
                let result = Type::map(self.bound.fresh(), self.bound.fresh());
                if !self.bound.assign(&body, &result) {
                    self.no_overload(node, "cel.@mapInsert", false, &[Type::map(Type::Dyn, Type::Dyn), body]);
                }
                result
            }
            FoldKind::Bind => body,
            FoldKind::SortBy => self.sorted(node, range, body),
            FoldKind::OptMap => Type::optional(body),
            FoldKind::OptFlatMap => {
                let inner = self.bound.fresh();
                if !self.bound.assign(&body, &Type::optional(inner)) {
                    let none = Type::optional(Type::Dyn);
                    self.no_overload(node, "_?_:_", false, &[Type::Bool, body.clone(), none]);
                }
                body
            }
        }
    }

    /// `sortBy` calls a function on the list and the list of keys.
    fn sorted(&mut self, node: &Node, range: &Type, key: Type) -> Type {
        let name = "@sortByAssociatedKeys";
        let rows = library::find(name, false).unwrap_or_default();
        let (t, rows) = self.overload(node, name, rows, true, vec![range.clone(), Type::list(key)]);
        self.mean(node, Meaning::Call(rows));
        t
    }

    /// The condition of the conditional that a macro stands for.
    fn ternary(&mut self, node: &Node, condition: &Type, accu: &Type) {
        if !self.bound.assign(condition, &Type::Bool) {
            self.no_overload(node, "_?_:_", false, &[condition.clone(), accu.clone(), accu.clone()]);
        }
    }
}

fn unwrap_optional(t: Type) -> (Type, bool) {
    match t {
        Type::Optional(inner) => (Type::clone(&inner), true),
        other => (other, false),
    }
}

fn literal(value: &crate::Value<'static>) -> Type {
    match value {
        crate::Value::Null => Type::Null,
        crate::Value::Bool(_) => Type::Bool,
        crate::Value::Int(_) => Type::Int,
        crate::Value::Uint(_) => Type::Uint,
        crate::Value::Double(_) => Type::Double,
        crate::Value::Bytes(_) => Type::Bytes,
        _ => Type::String,
    }
}
