//! Sets of field paths, in the form of FieldsV1: `f:name`, `k:{keys}`, `v:value`, `i:index`.

use serde_json::{Map, Value};
use std::cmp::Ordering;

/// A set of field paths: a tree whose nodes may be members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet {
    /// Whether the path that leads here is in the set.
    pub(crate) member: bool,
    children: Vec<(Box<str>, FieldSet)>,
}

impl FieldSet {
    /// A set of the path itself.
    pub(crate) fn leaf() -> Self {
        Self { member: true, children: Vec::new() }
    }

    /// A set of paths below these elements, which come in any order; of doublets, `of_two` decides.
    pub(crate) fn of(mut children: Vec<(Box<str>, Self)>, of_two: impl Fn(Self, Self) -> Self) -> Self {
        if !children.is_sorted_by(|(a, _), (b, _)| a < b) {
            children.sort_by(|(a, _), (b, _)| a.cmp(b));
            children.dedup_by(|(later, second), (kept, first)| {
                let same = later == kept;
                if same {
                    *first = of_two(std::mem::take(first), std::mem::take(second));
                }
                same
            });
        }
        children.shrink_to_fit();
        Self { member: false, children }
    }

    /// The same set with or without the path itself.
    pub(crate) fn with_member(self, member: bool) -> Self {
        Self { member, ..self }
    }

    /// The paths below, by path element and in its order.
    pub(crate) fn children(&self) -> &[(Box<str>, Self)] {
        &self.children
    }

    fn find(&self, element: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|(key, _)| (**key).cmp(element))
    }

    /// What is below a path element.
    pub(crate) fn child(&self, element: &str) -> Option<&Self> {
        self.find(element).ok().map(|at| &self.children[at].1)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.iter().all(|(_, child)| child.is_empty())
    }

    /// Puts a path in.
    pub fn insert(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            self.member = true;
            return;
        };
        let at = self.find(first).unwrap_or_else(|at| {
            self.children.insert(at, ((*first).into(), Self::default()));
            at
        });
        self.children[at].1.insert(rest);
    }

    /// Whether a path is in the set.
    pub fn has(&self, path: &[String]) -> bool {
        match path.split_first() {
            Some((first, rest)) => self.child(first).is_some_and(|child| child.has(rest)),
            None => self.member,
        }
    }

    /// Paths of either.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        self.member |= other.member;
        if self.children.is_empty() || other.children.is_empty() {
            self.children.extend(other.children);
            return self;
        }
        let mut out = Vec::with_capacity(self.children.len().max(other.children.len()));
        let (mut ours, mut theirs) = (self.children.into_iter().peekable(), other.children.into_iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            if order == Ordering::Equal
                && let (Some((key, one)), Some((_, other))) = (ours.next(), theirs.next())
            {
                out.push((key, one.union(other)));
                continue;
            }
            let Some(next) = (if order == Ordering::Less { ours.next() } else { theirs.next() }) else { break };
            out.push(next);
        }
        Self { member: self.member, children: out }
    }

    /// Paths of this one alone.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.member &= !other.member;
        let mut theirs = other.children.iter().peekable();
        self.children.retain_mut(|(key, ours)| {
            while theirs.next_if(|(other, _)| other < key).is_some() {}
            match theirs.next_if(|(other, _)| other == key) {
                None => true,
                Some((_, theirs)) => {
                    *ours = std::mem::take(ours).difference(theirs);
                    !ours.is_empty()
                }
            }
        });
        self
    }

    /// Paths of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut theirs = other.children.iter().peekable();
        let child = |(key, ours): &(Box<str>, Self)| {
            while theirs.next_if(|(other, _)| other < key).is_some() {}
            let both = ours.intersection(&theirs.next_if(|(other, _)| other == key)?.1);
            (!both.is_empty()).then(|| (key.clone(), both))
        };
        Self { member: self.member && other.member, children: self.children.iter().filter_map(child).collect() }
    }

    /// Without these fields and everything below them.
    #[must_use]
    pub fn without(mut self, fields: &[&[&str]]) -> Self {
        fields.iter().for_each(|path| self.cut(path));
        self
    }

    fn cut(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let Ok(at) = self.find(&["f:", first].concat()) else { return };
        match rest {
            [] => drop(self.children.remove(at)),
            rest => self.children[at].1.cut(rest),
        }
    }

    /// Reads `fieldsV1`; `None` where it is none.
    pub fn from_json(fields: &Value) -> Option<Self> {
        let map = fields.as_object()?;
        let child = |(key, value): (&String, &Value)| {
            let child = Self::from_json(value)?;
            // An element with nothing inside is a member by itself.
            let member = child.member || child.children.is_empty();
            Some((element(key)?, Self { member, ..child }))
        };
        let children = map.iter().filter(|(key, _)| *key != ".").map(child).collect::<Option<_>>()?;
        Some(Self { member: map.contains_key("."), ..Self::of(children, |_, second| second) })
    }

    /// Writes `fieldsV1`.
    pub fn into_json(self) -> Value {
        let children = self.children.into_iter().filter(|(_, child)| !child.is_empty());
        let mut out: Map<String, Value> = children.map(|(key, child)| (key.into(), child.into_json())).collect();
        if self.member && !out.is_empty() {
            out.insert(".".into(), Value::Object(Map::new()));
        }
        out.into()
    }

    /// Every path as messages print it: `.spec.containers[name="c"].image`, a level's own members first.
    pub fn paths(&self) -> Vec<(Vec<String>, String)> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, at: &mut Vec<String>, out: &mut Vec<(Vec<String>, String)>) {
        for (key, _) in self.children.iter().filter(|(_, child)| child.member) {
            at.push(key.to_string());
            out.push((at.clone(), at.iter().map(|e| printed(e)).collect()));
            at.pop();
        }
        for (key, child) in &self.children {
            at.push(key.to_string());
            child.collect(at, out);
            at.pop();
        }
    }
}

/// Brings a path element of outside to the form our own have.
fn element(key: &str) -> Option<Box<str>> {
    let (kind, rest) = key.split_once(':')?;
    match kind {
        "f" => Some(key.into()),
        "k" | "v" => Some(format!("{kind}:{}", serde_json::from_str::<Value>(rest).ok()?).into()),
        "i" => rest.parse::<usize>().ok().map(|i| format!("i:{i}").into()),
        _ => None,
    }
}

/// A path element as messages print it.
pub(crate) fn printed(element: &str) -> String {
    let (kind, rest) = element.split_once(':').unwrap_or(("f", element));
    match (kind, serde_json::from_str::<Value>(rest)) {
        ("k", Ok(Value::Object(keys))) => {
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", value_text(v))).collect();
            format!("[{}]", keys.join(","))
        }
        ("v", Ok(value)) => format!("[={}]", value_text(&value)),
        ("i", _) => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

/// A value as a path element names it; the members of a map follow each other.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key}={}", value_text(value))).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(fields: Value) -> FieldSet {
        FieldSet::from_json(&fields).expect("a field set")
    }

    #[test]
    fn reads_and_writes_fields_v1() {
        let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}}, "f:l": {"v:\"x\"": {}}});
        assert_eq!(set(fields.clone()).into_json(), fields);
        let printed: Vec<String> = set(fields).paths().into_iter().map(|(_, text)| text).collect();
        assert_eq!(printed, [".l[=\"x\"]", ".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].image"]);
        assert_eq!(FieldSet::from_json(&json!({"x": {}})), None);
        assert_eq!(FieldSet::from_json(&json!({"f:a": 1})), None);
    }

    #[test]
    fn set_operations() {
        let (a, b) = (set(json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}})), set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(a.clone().union(b.clone()).into_json(), json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}, "f:c": {}}));
        assert_eq!(a.clone().difference(&b).into_json(), json!({"f:a": {"f:x": {}}, "f:b": {}}));
        assert_eq!(a.intersection(&b).into_json(), json!({"f:a": {}}));
        assert!(a.clone().difference(&a).is_empty());
        assert_eq!(a.without(&[&["a", "x"], &["b"]]).into_json(), json!({"f:a": {}}));
    }
}
