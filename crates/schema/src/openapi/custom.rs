//! Custom resources in the documents: their kinds, made from the schemas of their definitions, and their operations.
//!
//! v2 knows less than v3: what it cannot say (`anyOf` and its like, null, unknown fields) is left out so that clients
//! which validate by it accept what the server accepts.

use super::components::{Closure, Flavour};
use super::{Descriptions, definitions, description, paths, write_object};
use crate::types::Schema;
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// One version of a custom resource.
#[derive(Clone, Copy, Debug)]
pub struct CustomKind<'a> {
    /// Group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Plural name.
    pub plural: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Kind of lists.
    pub list_kind: &'a str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether the status is a subresource.
    pub status: bool,
    /// Whether the scale is.
    pub scale: bool,
    /// `openAPIV3Schema`
    pub schema: &'a Value,
    /// Paths of the selectable fields, without the dot in front.
    pub selectable: &'a [&'static str],
}

impl CustomKind<'_> {
    /// Name of the definition of a kind: `com.example.v1.Foo`.
    pub(super) fn model(&self, kind: &str) -> String {
        let group: Vec<&str> = self.group.split('.').rev().collect();
        format!("{}.{}.{kind}", group.join("."), self.version)
    }

    fn gvk(&self, kind: &str) -> Value {
        json!([{"group": self.group, "version": self.version, "kind": kind}])
    }

    /// The definitions of the kind and of its lists.
    pub(super) fn definitions(&self, flavour: Flavour) -> [(String, Value); 2] {
        let mut kind = self.definition(flavour);
        let mut list = self.list(flavour);
        kind["x-kubernetes-group-version-kind"] = self.gvk(self.kind);
        list["x-kubernetes-group-version-kind"] = self.gvk(self.list_kind);
        if !self.selectable.is_empty() {
            let fields: Vec<_> = self.selectable.iter().map(|path| json!({"fieldPath": path})).collect();
            for definition in [&mut kind, &mut list] {
                definition["x-kubernetes-selectable-fields"] = fields.clone().into();
            }
        }
        [(self.model(self.kind), kind), (self.model(self.list_kind), list)]
    }

    fn definition(&self, flavour: Flavour) -> Value {
        let keeps = self.schema.get(PRESERVE) == Some(&Value::Bool(true));
        if !self.schema.is_object() || (flavour == Flavour::V2 && keeps) {
            return json!({"type": "object"});
        }
        let mut schema = self.schema.clone();
        unfold(&mut schema);
        if flavour == Flavour::V2 {
            to_v2(&mut schema);
        }
        embed(&mut schema, flavour);
        set_property(
            &mut schema,
            "metadata",
            described(flavour.reference(&format!("{META}.ObjectMeta")), OBJECT_METADATA, flavour),
        );
        type_meta(&mut schema);
        schema
    }

    fn list(&self, flavour: Flavour) -> Value {
        let doc = format!("List of {}. More info: {CONVENTIONS}", self.plural);
        let items = json!({"type": "array", "description": doc, "items": flavour.reference(&self.model(self.kind))});
        let mut list = json!({"type": "object", "description": format!("{} is a list of {}", self.list_kind, self.kind),
            "required": ["items"]});
        set_property(&mut list, "items", items);
        set_property(
            &mut list,
            "metadata",
            described(flavour.reference(&format!("{META}.ListMeta")), LIST_METADATA, flavour),
        );
        type_meta(&mut list);
        list
    }
}

const OBJECT_METADATA: (&str, &str) = ("io.k8s.api.core.v1.ConfigMap", "metadata");
const LIST_METADATA: (&str, &str) = ("io.k8s.api.core.v1.PodList", "metadata");

/// A reference with the description of a built-in kind's field that means the same.
fn described(reference: Value, (schema, field): (&'static str, &'static str), flavour: Flavour) -> Value {
    // In v3 nothing may stand beside a $ref.
    let mut out = if flavour == Flavour::V3 { json!({"allOf": [reference]}) } else { reference };
    out["description"] = description(schema, field).unwrap_or_default().into();
    out
}

fn set_property(schema: &mut Value, name: &str, value: Value) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"][name] = value;
}

fn type_meta(schema: &mut Value) {
    for field in ["apiVersion", "kind"] {
        let text = description("io.k8s.api.core.v1.ConfigMap", field).unwrap_or_default();
        set_property(schema, field, json!({"type": "string", "description": text}));
    }
}

/// Applies a change to a schema and those below it, from the top.
fn walk(schema: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    let Value::Object(map) = schema else { return };
    change(map);
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|below| walk(below, change));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(name) {
            walk(below, change);
        }
    }
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name) == Some(&Value::Bool(true))
}

/// Says of what is an integer or a string that it is one of these.
fn unfold(schema: &mut Value) {
    walk(schema, &|map| {
        let types = json!([{"type": "integer"}, {"type": "string"}]);
        let said = map.get("anyOf") == Some(&types)
            || map.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("anyOf")) == Some(&types);
        if !flag(map, "x-kubernetes-int-or-string") || said {
            return;
        }
        match map.get_mut("anyOf") {
            None => drop(map.insert("anyOf".into(), types)),
            Some(_) => {
                let all = map.entry("allOf").or_insert_with(|| json!([]));
                if let Value::Array(all) = all {
                    all.insert(0, json!({"anyOf": types}));
                }
            }
        }
    });
}

/// Leaves out what v2 cannot say.
fn to_v2(schema: &mut Value) {
    walk(schema, &|map| {
        for name in ["allOf", "oneOf", "anyOf", "not"] {
            map.remove(name);
        }
        if flag(map, "nullable") {
            for name in ["type", "nullable", "items", "properties"] {
                map.remove(name);
            }
        }
        if flag(map, PRESERVE) {
            map.remove("items");
            map.remove("properties");
            if map.get("type") == Some(&"object".into()) {
                map.remove("type");
            }
        }
        map.remove("nullable");
        if !map.contains_key("items") && map.get("type") == Some(&"array".into()) {
            map.remove("type");
        }
        requires_no_nullable(map);
    });
}

fn requires_no_nullable(map: &mut Map<String, Value>) {
    let is_nullable = |schema: Option<&Value>| schema.and_then(|s| s.get("nullable")) == Some(&Value::Bool(true));
    let properties = map.get("properties").cloned().unwrap_or_default();
    let none = is_nullable(map.get("additionalProperties"));
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|name| !none && !is_nullable(name.as_str().and_then(|name| properties.get(name))));
        if required.is_empty() {
            map.remove("required");
        }
    }
}

/// Gives whole objects inside their type and metadata.
fn embed(schema: &mut Value, flavour: Flavour) {
    walk(schema, &|map| {
        if !flag(map, EMBEDDED) || (flavour == Flavour::V2 && flag(map, PRESERVE)) {
            return;
        }
        let mut whole = Value::Object(std::mem::take(map));
        for (field, text) in [
            (
                "apiVersion",
                format!(
                    "apiVersion defines the versioned schema of this representation of an object. More info: {CONVENTIONS}#resources"
                ),
            ),
            (
                "kind",
                format!(
                    "kind is a string value representing the type of this object. In CamelCase. More info: {CONVENTIONS}#types-kinds"
                ),
            ),
        ] {
            set_property(&mut whole, field, json!({"type": "string", "description": text}));
        }
        let reference = flavour.reference(&format!("{META}.ObjectMeta"));
        set_property(&mut whole, "metadata", described(reference, OBJECT_METADATA, flavour));
        let Value::Object(mut whole) = whole else { return };
        if let Value::Array(required) = whole.entry("required").or_insert_with(|| json!([])) {
            for field in ["kind", "apiVersion"] {
                if !required.contains(&field.into()) {
                    required.push(field.into());
                }
            }
        }
        *map = whole;
    });
}

/// The definitions of some kinds.
pub(super) fn kinds(custom: &[CustomKind<'_>], flavour: Flavour) -> Vec<(String, Value)> {
    custom.iter().flat_map(|kind| kind.definitions(flavour)).collect()
}

/// The v3 document of a group version that has custom resources only.
pub fn openapi_v3_custom(custom: &[CustomKind<'_>]) -> Vec<u8> {
    let texts = Descriptions::unpack();
    let mut closure = Closure::default();
    for name in ["ObjectMeta", "ListMeta", "DeleteOptions", "Status"] {
        Schema::find(&format!("{META}.{name}")).into_iter().for_each(|schema| closure.add(schema));
    }
    if custom.iter().any(|kind| kind.scale) {
        Schema::find(SCALE).into_iter().for_each(|schema| closure.add(schema));
    }
    closure.specials.insert(format!("{META}.Patch"));
    let mut out = Vec::with_capacity(1 << 18);
    out.extend_from_slice(
        b"{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes CRD Swagger\",\"version\":\"v0.1.0\"},\"paths\":",
    );
    write_object(&mut out, custom.iter().flat_map(|kind| paths::custom(kind, Flavour::V3)));
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    let groups: Vec<_> = custom.first().map(|kind| (kind.group, kind.version)).into_iter().collect();
    let groups = [&[("", "v1")], groups.as_slice()].concat();
    let shared = definitions(&closure, Flavour::V3, &texts, &groups);
    write_object(&mut out, kinds(custom, Flavour::V3).into_iter().chain(shared));
    out.extend_from_slice(b"}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(schema: &Value) -> CustomKind<'_> {
        CustomKind {
            group: "stable.example.com",
            version: "v1",
            plural: "foos",
            kind: "Foo",
            list_kind: "FooList",
            namespaced: true,
            status: true,
            scale: false,
            schema,
            selectable: &[],
        }
    }

    #[test]
    fn v2_says_less() {
        let check = |below: Value, want: Value| {
            let schema = json!({"type": "object", "properties": {"x": below}});
            let [(name, found), _] = kind(&schema).definitions(Flavour::V2);
            assert_eq!((name.as_str(), &found["properties"]["x"]), ("com.example.stable.v1.Foo", &want));
        };
        check(json!({"type": "string", "anyOf": [{"minLength": 1}]}), json!({"type": "string"}));
        check(json!({"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}}), json!({}));
        check(
            json!({"type": "object", PRESERVE: true, "properties": {"a": {"type": "string"}}}),
            json!({PRESERVE: true}),
        );
        check(json!({"x-kubernetes-int-or-string": true}), json!({"x-kubernetes-int-or-string": true}));
        check(
            json!({"type": "object", "required": ["a", "b"],
                "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "string"}}}),
            json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "string"}}}),
        );
    }

    #[test]
    fn documents_are_whole() {
        let schema = json!({"type": "object", "description": "d", "properties": {"e": {"type": "object", EMBEDDED: true,
            "properties": {"spec": {"type": "object"}}}}});
        let doc: Value = serde_json::from_slice(&openapi_v3_custom(&[kind(&schema)])).expect("JSON");
        let schemas = doc["components"]["schemas"].as_object().expect("a map");
        for part in doc.to_string().split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a first part");
            assert!(schemas.contains_key(name), "{name}");
        }
        let foo = &schemas["com.example.stable.v1.Foo"];
        assert_eq!(foo["properties"]["e"]["required"], json!(["kind", "apiVersion"]));
        assert_eq!(foo["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
        let paths = doc["paths"].as_object().expect("a map");
        let at = "/apis/stable.example.com/v1/namespaces/{namespace}/foos/{name}/status";
        assert_eq!(paths[at]["patch"]["operationId"], "patchStableExampleComV1NamespacedFooStatus");
        assert_eq!(paths.len(), 4);
    }

    #[test]
    fn v2_has_them_beside_the_built_in_kinds() {
        let schema = json!({"type": "object"});
        let doc: Value = serde_json::from_slice(&super::super::openapi_v2(&[kind(&schema)])).expect("JSON");
        assert!(doc["definitions"]["com.example.stable.v1.FooList"].is_object());
        assert!(doc["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
        assert!(doc["paths"]["/apis/stable.example.com/v1/foos"]["get"].is_object());
    }
}
