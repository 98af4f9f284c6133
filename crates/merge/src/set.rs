//! Sets of field paths, in the form of FieldsV1: `f:name`, `k:{keys}`, `v:value`, `i:index`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of field paths: a tree whose nodes may be members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet {
    /// Whether the path that leads here is in the set.
    pub(crate) member: bool,
    /// By path element.
    pub(crate) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// A set of the path itself.
    pub(crate) fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Puts a path in.
    pub fn insert(&mut self, path: &[String]) {
        match path.split_first() {
            Some((first, rest)) => self.children.entry(first.clone()).or_default().insert(rest),
            None => self.member = true,
        }
    }

    /// Whether a path is in the set.
    pub fn has(&self, path: &[String]) -> bool {
        match path.split_first() {
            Some((first, rest)) => self.children.get(first).is_some_and(|child| child.has(rest)),
            None => self.member,
        }
    }

    /// Paths of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.member |= other.member;
        for (key, theirs) in &other.children {
            let merged = out.children.get(key).map_or_else(|| theirs.clone(), |ours| ours.union(theirs));
            out.children.insert(key.clone(), merged);
        }
        out
    }

    /// Paths of this one alone.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let child = |(key, ours): (&String, &Self)| {
            let rest = other.children.get(key).map_or_else(|| ours.clone(), |theirs| ours.difference(theirs));
            (!rest.is_empty()).then(|| (key.clone(), rest))
        };
        Self { member: self.member && !other.member, children: self.children.iter().filter_map(child).collect() }
    }

    /// Paths of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let child = |(key, ours): (&String, &Self)| {
            let both = ours.intersection(other.children.get(key)?);
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
        let key = format!("f:{first}");
        if rest.is_empty() {
            self.children.remove(&key);
        } else if let Some(child) = self.children.get_mut(&key) {
            child.cut(rest);
        }
    }

    /// Reads `fieldsV1`; `None` where it is none.
    pub fn from_json(fields: &Value) -> Option<Self> {
        let mut out = Self::read(fields)?;
        out.member = fields.get(".").is_some();
        Some(out)
    }

    fn read(fields: &Value) -> Option<Self> {
        let map = fields.as_object()?;
        let mut out = Self::default();
        for (key, value) in map {
            if key == "." {
                out.member = true;
                continue;
            }
            let child = Self::read(value)?;
            // An element with nothing inside is a member by itself.
            let member = child.member || child.children.is_empty();
            out.children.insert(element(key)?, Self { member, ..child });
        }
        Some(out)
    }

    /// Writes `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        let has_children = self.children.values().any(|c| !c.is_empty());
        if self.member && has_children {
            out.insert(".".into(), Value::Object(Map::new()));
        }
        for (key, child) in self.children.iter().filter(|(_, c)| !c.is_empty()) {
            out.insert(key.clone(), child.to_json());
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
        for (key, _) in self.children.iter().filter(|(_, c)| c.member) {
            at.push(key.clone());
            out.push((at.clone(), at.iter().map(|e| printed(e)).collect()));
            at.pop();
        }
        for (key, child) in &self.children {
            at.push(key.clone());
            child.collect(at, out);
            at.pop();
        }
    }
}

/// Brings a path element of outside to the form our own have.
fn element(key: &str) -> Option<String> {
    let (kind, rest) = key.split_once(':')?;
    match kind {
        "f" => Some(key.to_owned()),
        "k" | "v" => Some(format!("{kind}:{}", serde_json::from_str::<Value>(rest).ok()?)),
        "i" => rest.parse::<usize>().ok().map(|i| format!("i:{i}")),
        _ => None,
    }
}

/// A path element as messages print it.
pub(crate) fn printed(element: &str) -> String {
    let (kind, rest) = element.split_once(':').unwrap_or(("f", element));
    match (kind, serde_json::from_str::<Value>(rest)) {
        ("k", Ok(Value::Object(keys))) => {
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", keys.join(","))
        }
        ("v", _) => format!("[={rest}]"),
        ("i", _) => format!("[{rest}]"),
        _ => format!(".{rest}"),
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
        assert_eq!(set(fields.clone()).to_json(), fields);
        let printed: Vec<String> = set(fields).paths().into_iter().map(|(_, text)| text).collect();
        assert_eq!(printed, [".l[=\"x\"]", ".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].image"]);
        assert_eq!(FieldSet::from_json(&json!({"x": {}})), None);
        assert_eq!(FieldSet::from_json(&json!({"f:a": 1})), None);
    }

    #[test]
    fn set_operations() {
        let (a, b) = (set(json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}})), set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(a.union(&b).to_json(), json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}, "f:c": {}}));
        assert_eq!(a.difference(&b).to_json(), json!({"f:a": {"f:x": {}}, "f:b": {}}));
        assert_eq!(a.intersection(&b).to_json(), json!({"f:a": {}}));
        assert!(a.difference(&a).is_empty());
        assert_eq!(a.without(&[&["a", "x"], &["b"]]).to_json(), json!({"f:a": {}}));
    }
}
