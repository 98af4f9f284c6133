//! The JSON of internal types, as messages quote them: Go's names, every field, nothing left out.

use super::names::{DROPPED, MOVED, OF_THE_HOST, go_name, is_embedded};
use crate::types::{Field, Kind, Schema, Type};
use serde_json::Value;

/// How the JSON is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// On one line.
    Compact,
    /// Each field on a line, indented by one space a level.
    Indented,
}

/// A value of the schema as Go prints the JSON of its internal type.
///
/// Types of `meta/v1` have no internal form: they keep their own names and leave empty fields out.
pub fn internal_json(schema: &str, value: &Value, layout: Layout) -> String {
    let mut printer = Printer { out: String::new(), layout, depth: 0 };
    match Schema::find(schema) {
        Some(schema) => printer.structure(schema, value),
        None => printer.raw(value),
    }
    printer.out
}

struct Printer {
    out: String,
    layout: Layout,
    depth: usize,
}

impl Printer {
    fn typed(&mut self, ty: Type, value: &Value) {
        match ty.kind() {
            _ if value.is_null() && ty.is_pointer() => self.out.push_str("null"),
            Kind::List | Kind::Map if value.is_null() => self.out.push_str("null"),
            Kind::Struct => match ty.schema() {
                Some(schema) => self.structure(schema, value),
                None => self.raw(value),
            },
            Kind::List => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let element = ty.element();
                self.enclosed('[', ']', items.iter(), |printer, item| match element {
                    Some(element) => printer.typed(element, item),
                    None => printer.raw(item),
                });
            }
            Kind::Map => {
                let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                let element = ty.element();
                self.enclosed('{', '}', entries.into_iter(), |printer, (key, item)| {
                    printer.key(key);
                    match element {
                        Some(element) => printer.typed(element, item),
                        None => printer.raw(item),
                    }
                });
            }
            kind if value.is_null() => self.out.push_str(zero(kind)),
            _ => self.raw(value),
        }
    }

    fn structure(&mut self, schema: Schema, value: &Value) {
        if schema.name().starts_with("io.k8s.apimachinery") {
            return self.tagged(schema, value);
        }
        let host = schema.kind_name() == "PodSpec";
        let value = if host { with_host_fields(value) } else { value.clone() };
        let metadata = value.get("metadata").unwrap_or(&Value::Null);
        let mut shown: Vec<(String, Field, &Value)> = Vec::new();
        for (name, field) in fields(schema) {
            match field.ty().schema().filter(|_| is_embedded(field)) {
                // embedded metadata keeps its own names
                Some(embedded) => shown.extend(present(embedded, metadata)),
                None => shown.push((name, field, value.get(field.name()).unwrap_or(&Value::Null))),
            }
        }
        self.members(shown);
    }

    /// A struct with tags: JSON names, empty fields left out.
    fn tagged(&mut self, schema: Schema, value: &Value) {
        self.members(present(schema, value));
    }

    fn members(&mut self, members: Vec<(String, Field, &Value)>) {
        self.enclosed('{', '}', members.into_iter(), |printer, (name, field, value)| {
            printer.key(&name);
            printer.typed(field.ty(), value);
        });
    }

    fn enclosed<T>(&mut self, open: char, close: char, items: impl Iterator<Item = T>, print: impl Fn(&mut Self, T)) {
        self.out.push(open);
        self.depth += 1;
        let mut any = false;
        for item in items {
            if std::mem::replace(&mut any, true) {
                self.out.push(',');
            }
            self.line();
            print(self, item);
        }
        self.depth -= 1;
        if any {
            self.line();
        }
        self.out.push(close);
    }

    fn line(&mut self) {
        if self.layout == Layout::Indented {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', self.depth));
        }
    }

    fn key(&mut self, name: &str) {
        self.text(name);
        self.out.push_str(if self.layout == Layout::Indented { ": " } else { ":" });
    }

    /// A string, with the characters escaped that Go's encoder keeps out of web pages.
    fn text(&mut self, text: &str) {
        let quoted = Value::from(text).to_string();
        for c in quoted.chars() {
            match c {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c => self.out.push(c),
            }
        }
    }

    /// A value without a type.
    fn raw(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => self.enclosed('[', ']', items.iter(), |printer, item| printer.raw(item)),
            Value::Object(map) => self.enclosed('{', '}', map.iter(), |printer, (key, item)| {
                printer.key(key);
                printer.raw(item);
            }),
            other => self.out.push_str(&other.to_string()),
        }
    }
}

/// The fields of a struct with tags that are written.
fn present(schema: Schema, value: &Value) -> Vec<(String, Field, &Value)> {
    let mut out = Vec::new();
    for field in schema.flat_fields() {
        let at = value.get(field.name()).unwrap_or(&Value::Null);
        let left_out = field.is_omitempty() && !field.ty().is_pointer() && holds_nothing(at);
        if !left_out && (!at.is_null() || !(field.is_omitempty() || field.is_omitzero() || field.ty().is_pointer())) {
            out.push((field.name().to_owned(), field, at));
        }
    }
    out
}

fn holds_nothing(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn zero(kind: Kind) -> &'static str {
    match kind {
        Kind::String | Kind::Duration => "\"\"",
        Kind::Quantity => "\"0\"",
        Kind::Bool => "false",
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => "0",
        _ => "null",
    }
}

/// Go's names and the fields of an internal struct in its order, those of embedded structs in place.
fn fields(schema: Schema) -> Vec<(String, Field)> {
    let mut out = Vec::new();
    for field in schema.fields() {
        match field.ty().schema().filter(|_| field.is_inline()) {
            Some(embedded) => out.extend(fields(embedded)),
            None => out.push((go_name(schema, field), field)),
        }
    }
    let kind = schema.kind_name();
    out.retain(|(name, field)| {
        !DROPPED.contains(&(kind, name)) && !(kind == "PodSpec" && OF_THE_HOST.contains(&field.name()))
    });
    for (of, moved, behind) in MOVED.iter().filter(|(of, ..)| *of == kind) {
        debug_assert_eq!(*of, kind);
        if let Some(from) = out.iter().position(|(name, _)| name == moved) {
            let entry = out.remove(from);
            let to = out.iter().position(|(name, _)| name == behind).map_or(0, |at| at + 1);
            out.insert(to, entry);
        }
    }
    if kind == "PodSecurityContext"
        && let Some(spec) = Schema::find("io.k8s.api.core.v1.PodSpec")
    {
        let host = OF_THE_HOST.iter().filter_map(|name| spec.field(name)).map(|field| (go_name(spec, field), field));
        out.splice(0..0, host);
    }
    out
}

/// Internally a pod's security context always exists and knows what is shared with the host.
fn with_host_fields(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Value::Object(fields) = &mut spec else { return spec };
    let host: Vec<_> = OF_THE_HOST.iter().filter_map(|name| fields.remove_entry(*name)).collect();
    let context = fields.entry("securityContext").or_insert(Value::Null);
    if context.is_null() {
        *context = serde_json::json!({});
    }
    context.as_object_mut().into_iter().for_each(|c| c.extend(host.iter().cloned()));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: &str, value: Value, want: &str) {
        assert_eq!(internal_json(&format!("io.k8s.api.{schema}"), &value, Layout::Compact), want);
    }

    #[test]
    fn nothing_is_left_out() {
        check(
            "core.v1.VolumeResourceRequirements",
            json!({"requests": {"storage": "1Gi"}}),
            r#"{"Limits":null,"Requests":{"storage":"1Gi"}}"#,
        );
        check(
            "core.v1.SecurityContext",
            json!({"runAsUser": 0}),
            r#"{"Capabilities":null,"Privileged":null,"SELinuxOptions":null,"WindowsOptions":null,"RunAsUser":0,"RunAsGroup":null,"RunAsNonRoot":null,"ReadOnlyRootFilesystem":null,"AllowPrivilegeEscalation":null,"ProcMount":null,"SeccompProfile":null,"AppArmorProfile":null}"#,
        );
        check(
            "rbac.v1.RoleRef",
            json!({"kind": "<R>", "name": "n"}),
            r#"{"APIGroup":"","Kind":"\u003cR\u003e","Name":"n"}"#,
        );
    }

    #[test]
    fn pods_keep_host_fields_in_the_security_context() {
        let spec = json!({"hostPID": true, "containers": []});
        let text = internal_json("io.k8s.api.core.v1.PodSpec", &spec, Layout::Compact);
        assert!(
            text.contains(r#""NodeName":"","SecurityContext":{"HostNetwork":false,"HostPID":true,"HostIPC":false,"#)
        );
        assert!(text.contains(r#""Containers":[],"EphemeralContainers":null"#), "{text}");
    }
}
