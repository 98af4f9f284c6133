//! Checks beyond types: literal durations, timestamps, patterns and templates, and literals of one type.

use crate::ast::{Expr, Node, as_text};
use crate::checker::Checked;
use crate::error::Issue;
use crate::library::{Regex, string_format};
use crate::source::report;
use crate::time;
use crate::types::Type;

/// Checks the literals of a tree.
pub(crate) fn literals(root: &Node, checked: &Checked) -> Result<(), Vec<Issue>> {
    let mut walk = Walk { checked, issues: Vec::new() };
    walk.node(root, false);
    if walk.issues.is_empty() { Ok(()) } else { Err(walk.issues) }
}

struct Walk<'c> {
    checked: &'c Checked,
    issues: Vec<Issue>,
}

impl Walk<'_> {
    /// `exempt`: inside the arguments of `format`, which may mix types.
    fn node(&mut self, node: &Node, exempt: bool) {
        match &*node.expr {
            Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select { operand, .. } => self.node(operand, exempt),
            Expr::Call { function, target, args } => {
                self.call(function, args);
                if let ("format", Some(target)) = (function.as_str(), target) {
                    self.format(node, target, args);
                }
                let exempt = exempt || function == "format";
                target.iter().chain(args).for_each(|node| self.node(node, exempt));
            }
            Expr::List(elements) => {
                let parts: Vec<(&Node, bool)> = elements.iter().map(|e| (&e.value, e.optional)).collect();
                self.alike(&parts, exempt, true);
                elements.iter().for_each(|e| self.node(&e.value, exempt));
            }
            Expr::Map(entries) => {
                self.alike(&entries.iter().map(|e| (&e.key, false)).collect::<Vec<_>>(), exempt, false);
                self.alike(&entries.iter().map(|e| (&e.value, e.optional)).collect::<Vec<_>>(), exempt, false);
                entries.iter().for_each(|e| {
                    self.node(&e.key, exempt);
                    self.node(&e.value, exempt);
                });
            }
            Expr::Struct { fields, .. } => fields.iter().for_each(|f| self.node(&f.value, exempt)),
            Expr::Fold(fold) => {
                [Some(&fold.range), fold.filter.as_ref(), Some(&fold.body)]
                    .into_iter()
                    .flatten()
                    .for_each(|n| self.node(n, exempt));
            }
        }
    }

    fn call(&mut self, function: &str, args: &[Node]) {
        let Some(arg) = args.first() else { return };
        if let (Expr::Literal(crate::Value::Int(seconds)), "timestamp") = (&*arg.expr, function)
            && time::from_seconds(*seconds).is_err()
        {
            return report(&mut self.issues, arg.at, "invalid timestamp argument");
        }
        let Some(text) = as_text(arg) else { return };
        let valid = match function {
            "duration" => time::parse_duration(text).is_some(),
            "timestamp" => time::parse_timestamp(text).is_some(),
            "matches" => Regex::new(text).is_ok(),
            _ => true,
        };
        if !valid {
            report(&mut self.issues, arg.at, format!("invalid {function} argument"));
        }
    }

    /// A constant template with a list written out.
    fn format(&mut self, node: &Node, target: &Node, args: &[Node]) {
        let (Some(template), [list]) = (as_text(target), args) else { return };
        let Expr::List(elements) = &*list.expr else { return };
        let types: Vec<&Type> = elements.iter().map(|e| &self.checked.types[e.value.id as usize]).collect();
        if let Err((place, why)) = string_format::check(template, &types) {
            let at = place.and_then(|place| elements.get(place)).map_or(node.at, |element| element.value.at);
            report(&mut self.issues, at, why);
        }
    }

    fn alike(&mut self, nodes: &[(&Node, bool)], exempt: bool, once: bool) {
        if exempt {
            return;
        }
        let mut first: Option<Type> = None;
        for (node, optional) in nodes {
            let t = &self.checked.types[node.id as usize];
            let t = match t {
                Type::Optional(inner) if *optional => inner,
                other => other,
            };
            match &first {
                None => first = Some(t.clone()),
                Some(expected) if expected == t => {}
                Some(expected) => {
                    let message = format!("expected type '{expected}' but found '{t}'");
                    report(&mut self.issues, node.at, message);
                    if once {
                        return;
                    }
                }
            }
        }
    }
}
