//! A pod (or template) as the checks see it.

use serde_json::Value;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod's annotations, specification and all its containers.
pub struct View<'a> {
    /// The pod or template.
    pub object: &'a Value,
    /// Its specification.
    pub spec: &'a Value,
    /// Init, ordinary and ephemeral containers, in that order.
    pub containers: Vec<&'a Value>,
    /// The minor version whose rules hold.
    pub minor: u32,
}

impl<'a> View<'a> {
    /// The view of a pod or template, under the latest rules.
    pub fn new(object: &'a Value) -> Self {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let containers = LISTS.iter().filter_map(|list| spec.get(list)?.as_array()).flatten().collect();
        Self { object, spec, containers, minor: u32::MAX }
    }

    /// A field of the pod's security context.
    pub fn pod(&self, pointer: &str) -> &'a Value {
        self.spec.pointer(&format!("/securityContext{pointer}")).unwrap_or(&Value::Null)
    }

    /// Names of the containers that satisfy a condition on their security context.
    pub fn containers_where(&self, condition: impl Fn(&'a Value) -> bool) -> Vec<String> {
        let matching = self.containers.iter().copied().filter(|c| condition(context(c)));
        matching.map(name).collect()
    }

    /// Entries of a list of the specification.
    pub fn list(&self, field: &str) -> &'a [Value] {
        self.spec.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Whether the pod runs in a user namespace of its own, which newer rules trust.
    pub fn has_user_namespace(&self) -> bool {
        self.minor >= 35 && self.spec.get("hostUsers") == Some(&Value::Bool(false))
    }

    /// Whether the pod is for Windows, where newer rules know that Linux' fields mean nothing.
    pub fn is_windows(&self) -> bool {
        self.minor >= 25 && self.spec.pointer("/os/name").and_then(Value::as_str) == Some("windows")
    }
}

/// A container's security context.
pub fn context(container: &Value) -> &Value {
    container.get("securityContext").unwrap_or(&Value::Null)
}

/// The name of a container or volume.
pub fn name(item: &Value) -> String {
    text(item, "name").to_owned()
}

/// A string field, empty when absent.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// The strings of a list.
pub fn texts<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// `"a", "b"`
pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect();
    items.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub fn containers(names: &[String]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// A regular noun in the number that fits.
pub fn plural(noun: &str, count: usize) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// `pod and containers "a", "b"`; `None` when nothing sets it.
pub fn setters(pod: bool, names: &[String]) -> Option<String> {
    match (pod, names.is_empty()) {
        (true, true) => Some("pod".into()),
        (true, false) => Some(format!("pod and {}", containers(names))),
        (false, false) => Some(containers(names)),
        (false, true) => None,
    }
}
