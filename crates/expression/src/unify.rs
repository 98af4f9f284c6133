//! Assignability of types, with type variables bound as it goes.

use crate::types::{FREE, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// Type parameters and what they were bound to.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    map: HashMap<u32, Type>,
    free: u32,
    /// What bindings were before, so that a failed attempt can be taken back.
    trail: Vec<(u32, Option<Type>)>,
}

/// Types nest no deeper; expressions are bounded, but bindings may pile up.
const MAX_DEPTH: u32 = 400;

impl Bound {
    /// A type variable that is bound to nothing yet.
    pub fn fresh(&mut self) -> Type {
        self.free += 1;
        Type::Param(FREE + self.free - 1)
    }

    /// A signature's types with fresh variables for its parameters.
    pub fn instantiate(&mut self, types: &[&Type]) -> Vec<Type> {
        let mut names: HashMap<u32, Type> = HashMap::new();
        types.iter().map(|t| self.rename(t, &mut names)).collect()
    }

    fn rename(&mut self, t: &Type, names: &mut HashMap<u32, Type>) -> Type {
        match t {
            Type::Param(n) => match names.get(n) {
                Some(t) => t.clone(),
                None => {
                    let fresh = self.fresh();
                    names.insert(*n, fresh.clone());
                    fresh
                }
            },
            Type::List(t) => Type::list(self.rename(t, names)),
            Type::Optional(t) => Type::optional(self.rename(t, names)),
            Type::Type(t) => Type::Type(Arc::new(self.rename(t, names))),
            Type::Map(kv) => Type::map(self.rename(&kv.0, names), self.rename(&kv.1, names)),
            other => other.clone(),
        }
    }

    /// The type with its variables replaced by what they are bound to; those bound to nothing stay, or become `dyn`.
    pub fn resolve(&self, t: &Type, to_dyn: bool) -> Type {
        self.resolved(t, to_dyn, 0)
    }

    fn resolved(&self, t: &Type, to_dyn: bool, depth: u32) -> Type {
        if depth > MAX_DEPTH {
            return Type::Dyn;
        }
        let below = |t: &Type| self.resolved(t, to_dyn, depth + 1);
        match t {
            Type::Param(n) => match self.map.get(n) {
                Some(bound) => below(bound),
                None if to_dyn => Type::Dyn,
                None => t.clone(),
            },
            Type::List(t) => Type::list(below(t)),
            Type::Optional(t) => Type::optional(below(t)),
            Type::Type(t) => Type::Type(Arc::new(below(t))),
            Type::Map(kv) => Type::map(below(&kv.0), below(&kv.1)),
            other => other.clone(),
        }
    }

    /// Whether `from` may stand where `to` is wanted; binds variables only if so.
    pub fn assign(&mut self, from: &Type, to: &Type) -> bool {
        self.assign_all(std::slice::from_ref(from), std::slice::from_ref(to))
    }

    /// As [`Bound::assign`], for all pairs or none.
    pub fn assign_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        if from.len() != to.len() {
            return false;
        }
        self.trail.clear();
        let fits = from.iter().zip(to).all(|(from, to)| self.assigns(from, to, 0));
        if !fits {
            while let Some((n, before)) = self.trail.pop() {
                match before {
                    Some(t) => self.map.insert(n, t),
                    None => self.map.remove(&n),
                };
            }
        }
        fits
    }

    fn bind(&mut self, n: u32, t: Type) {
        let before = self.map.insert(n, t);
        self.trail.push((n, before));
    }

    fn assigns(&mut self, from: &Type, to: &Type, depth: u32) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        if let Type::Param(_) = to {
            let (valid, bound) = self.substitutes(from, to, depth);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Param(_) = from {
            return self.substitutes(to, from, depth).0;
        }
        match (from, to) {
            (a, b) if a.is_dyn() || b.is_dyn() => true,
            (Type::Null, other) | (other, Type::Null) => {
                matches!(
                    other,
                    Type::Null
                        | Type::Optional(_)
                        | Type::Object(_)
                        | Type::Opaque(_)
                        | Type::Duration
                        | Type::Timestamp
                )
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assigns(a, b, depth + 1),
            (Type::Map(a), Type::Map(b)) => self.assigns(&a.0, &b.0, depth + 1) && self.assigns(&a.1, &b.1, depth + 1),
            (a, b) => a == b,
        }
    }

    /// Whether the variable may be the type (or already is something it fits), and whether it was bound before.
    fn substitutes(&mut self, t: &Type, variable: &Type, depth: u32) -> (bool, bool) {
        let Type::Param(n) = variable else { return (false, false) };
        if t == variable {
            return (true, true);
        }
        if let Some(bound) = self.map.get(n).cloned() {
            if *t == bound {
                return (true, true);
            }
            if !self.assigns(t, &bound, depth + 1) {
                return (false, true);
            }
            let general = most_general(t, &bound);
            if !self.occurs(*n, &general, 0) {
                self.bind(*n, general);
            }
            return (true, true);
        }
        if self.occurs(*n, t, 0) {
            return (false, false);
        }
        self.bind(*n, t.clone());
        (true, false)
    }

    fn occurs(&self, n: u32, t: &Type, depth: u32) -> bool {
        match t {
            _ if depth > MAX_DEPTH => true,
            Type::Param(m) if *m == n => true,
            Type::Param(m) => self.map.get(m).is_some_and(|bound| self.occurs(n, bound, depth + 1)),
            other => other.parameters().into_iter().any(|p| self.occurs(n, p, depth + 1)),
        }
    }
}

/// The less specific of two types that fit each other.
pub(crate) fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Any | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Any | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.0, &b.0) && less_specific(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}
