//! Sets of field paths, in the form of FieldsV1: `f:name`, `k:{keys}`, `v:value`, `i:index`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
    pub fn union(mut self, other: Self) -> Self {
        self.member |= other.member;
        if self.children.is_empty() {
            self.children = other.children;
            return self;
        }
        for (key, theirs) in other.children {
            match self.children.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(theirs)),
                Entry::Occupied(mut entry) => {
                    let ours = std::mem::take(entry.get_mut());
                    entry.insert(ours.union(theirs));
                }
            }
        }
        self
    }

    /// Paths of this one alone.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.member &= !other.member;
        if !other.children.is_empty() {
            self.children.retain(|key, ours| match other.children.get(key) {
                None => true,
                Some(theirs) => {
                    *ours = std::mem::take(ours).difference(theirs);
                    !ours.is_empty()
                }
            });
        }
        self
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
        Self::read(fields)
    }

    fn read(fields: &Value) -> Option<Self> {
        let map = fields.as_object()?;
        let child = |(key, value): (&String, &Value)| {
            let child = Self::read(value)?;
            // An element with nothing inside is a member by itself.
            let member = child.member || child.children.is_empty();
            Some((element(key)?, Self { member, ..child }))
        };
        let children = map.iter().filter(|(key, _)| *key != ".").map(child).collect::<Option<_>>()?;
        Some(Self { member: map.contains_key("."), children })
    }

    /// Writes `fieldsV1`.
    pub fn into_json(self) -> Value {
        let children = self.children.into_iter().filter(|(_, child)| !child.is_empty());
        let mut out: Map<String, Value> = children.map(|(key, child)| (key, child.into_json())).collect();
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
