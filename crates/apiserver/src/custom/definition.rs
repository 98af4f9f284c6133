//! One served version of a custom resource, compiled from its definition.

use super::conversion::Webhook;
use super::discovery::compare_versions;
use super::json_path::JsonPath;
use super::strategy::Custom;
use super::{Behaviour, ROOT};
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::{ObjectStore, StoreSpec};
use api::{Object, meta};
use parking_lot::Mutex;
use resources::field::Fields;
use resources::structural::Schema;
use schema::ResourceFact;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

static STATUS: ResourceFact = sub("status", "", "", "");
static SCALE: ResourceFact = sub("scale", "Scale", "autoscaling", "v1");

const fn sub(name: &'static str, kind: &'static str, group: &'static str, version: &'static str) -> ResourceFact {
    ResourceFact {
        group: "",
        version: "",
        resource: "",
        subresource: name,
        kind,
        kind_group: group,
        kind_version: version,
        namespaced: true,
        verbs: &["get", "patch", "update"],
        short_names: &[],
        categories: &[],
        singular: "",
    }
}

/// Where the numbers of a scale are.
pub struct ScalePaths {
    /// Replicas wanted.
    pub spec: Vec<String>,
    /// Replicas counted.
    pub status: Vec<String>,
    /// Selector as text, when there is one.
    pub selector: Vec<String>,
}

/// A column that is printed.
pub struct PrinterColumn {
    /// `name`, `type`, `format`, `description` and `priority` as tables have them.
    pub shown: Value,
    /// Type.
    pub kind: String,
    /// Where the value is; `None` for a path that is not understood.
    pub path: Option<JsonPath>,
}

/// A version of a custom resource.
pub struct Definition {
    /// Name of the definition.
    pub name: String,
    /// Its version of the API.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Kind of lists.
    pub list_kind: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Compiled schema.
    pub schema: Schema,
    /// Schema as given.
    pub source: Value,
    /// Columns beside the name.
    pub columns: Vec<PrinterColumn>,
    /// Selectable fields.
    pub selectable: Vec<&'static str>,
    /// Whether the status is a subresource.
    pub status: bool,
    /// Where the scale is, when it is a subresource.
    pub scale: Option<ScalePaths>,
    /// What clients of the version are warned of.
    pub warning: Option<String>,
    /// Whether the definition is being deleted.
    pub terminating: bool,
    /// The version that objects are stored in, when it is served.
    pub served_storage: Option<String>,
    /// Whether objects are stored in this version.
    pub storage: bool,
    /// Whether stored objects are what this version shows, so that reads need no parsing.
    pub as_stored: bool,
}

impl Definition {
    /// What is done to an object that was read in another form: pruned and defaulted.
    pub fn read(&self, object: &mut Object) {
        self.schema.prune(object);
        self.schema.default_object(object);
    }

    /// Why an object has no scale: nothing is said of the replicas wanted.
    pub fn no_replicas(&self, object: &Object) -> Option<String> {
        let path = &self.scale.as_ref()?.spec;
        let found = path.iter().try_fold(object, |place, name| place.get(name));
        found.is_none().then(|| format!("the spec replicas field {:?} does not exist", format!(".{}", path.join("."))))
    }

    /// Decodes metadata, of embedded resources too, and drops unknown fields; gives the strict errors.
    pub fn clean(&self, object: &mut Object) -> Result<Vec<String>, String> {
        let Value::Object(_) = object else { return Err("json: cannot unmarshal into an object".into()) };
        whole_floats(object);
        let pruned = self.schema.prune(object);
        let mut strict = Vec::new();
        resources::structural::decode_metadata(object, "", &mut strict)?;
        strict.extend(pruned.iter().map(|path| format!("unknown field {path:?}")));
        let failed = self.schema.uncoerced(object, &mut strict);
        let failed = failed.map(|cause| format!("{}: {}", cause.field, cause.message));
        failed.map_or(Ok(strict), Err)
    }
}

/// Makes integers of floats without a fraction: that is how they are written.
fn whole_floats(value: &mut Value) {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= EXACT_MAX) {
                *value = (float as i64).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_floats),
        Value::Object(map) => map.values_mut().for_each(whole_floats),
        _ => {}
    }
}

/// The resources that an established definition serves; a store that still fits is used on.
pub fn resources(crd: &Object, server: &Arc<ApiServer>, present: Option<&Arc<ObjectStore>>) -> Vec<Resource> {
    let dispatcher = server.registry().dispatcher();
    let webhook = Webhook::of(crd, Arc::downgrade(server));
    let spec = crd.at("spec");
    let store_spec = store_spec(crd);
    let fits = |store: &&Arc<ObjectStore>| {
        let old = store.spec();
        let empty = Value::Object(serde_json::Map::new());
        old.api_version == store_spec.api_version
            && old.kind == store_spec.kind
            && old.namespaced == store_spec.namespaced
            && (old.fields)(&empty) == (store_spec.fields)(&empty)
    };
    let present = present.map(ObjectStore::stored);
    let store = present.as_ref().filter(fits).cloned();
    let store = store.unwrap_or_else(|| ObjectStore::new(dispatcher, store_spec.clone()));
    let served = spec.list("versions").iter().filter(|v| v.flag("served"));
    let shown = |version: &Value| match &webhook {
        None => store.clone(),
        Some(webhook) => {
            let fields = selectable(version);
            let fields = Arc::new(move |object: &Object| field_values(&fields, object));
            let api_version = format!("{}/{}", spec.text("group"), version.text("name"));
            store.view(&api_version, fields, webhook.clone())
        }
    };
    served.map(|version| resource(crd, version, shown(version))).collect()
}

fn resource(crd: &Object, version: &Value, store: Arc<ObjectStore>) -> Resource {
    let spec = crd.at("spec");
    let definition = Arc::new(definition(crd, version));
    let mut subresources = Vec::new();
    if definition.status {
        subresources.push(&STATUS);
    }
    if definition.scale.is_some() {
        subresources.push(&SCALE);
    }
    Resource {
        group: spec.text("group").into(),
        version: version.text("name").into(),
        resource: spec.at("names").text("plural").into(),
        kind: definition.kind.clone(),
        namespaced: spec.text("scope") == "Namespaced",
        verbs: VERBS.iter().map(|v| (*v).to_owned()).collect(),
        subresources,
        strategy: Behaviour::Custom(Arc::new(Custom(definition.clone()))),
        store,
        schema: ROOT,
        convert: None,
        typed_items: true,
        custom: Some(definition),
    }
}

fn definition(crd: &Object, version: &Value) -> Definition {
    let (spec, names) = (crd.at("spec"), crd.at("status").at("acceptedNames"));
    let source = version.at("schema").at("openAPIV3Schema").clone();
    let schema = Schema::new(&source);
    let texts = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
    let kind = spec.at("names").text("kind").to_owned();
    let stored = crd.at("status").texts("storedVersions");
    let api_version = format!("{}/{}", spec.text("group"), version.text("name"));
    let as_stored = version.flag("storage") && stored == [version.text("name")] && !schema.has_defaults();
    let deprecated = deprecation(spec, version, &kind);
    Definition {
        name: meta::name(crd).to_owned(),
        list_kind: spec.at("names").text("listKind").to_owned(),
        singular: names.text("singular").to_owned(),
        short_names: texts(names.texts("shortNames")),
        categories: texts(names.texts("categories")),
        columns: version.list("additionalPrinterColumns").iter().map(column).collect(),
        selectable: selectable(version),
        status: version.at("subresources").has("status"),
        scale: scale_paths(version.at("subresources").at("scale")),
        warning: version
            .flag("deprecated")
            .then(|| version.at("deprecationWarning").as_str().map_or(deprecated, str::to_owned)),
        terminating: meta::is_deleting(crd),
        storage: version.flag("storage"),
        served_storage: spec
            .list("versions")
            .iter()
            .find(|v| v.flag("storage") && v.flag("served"))
            .map(|v| v.text("name").to_owned()),
        api_version,
        kind,
        schema,
        source,
        as_stored,
    }
}

/// What clients of a deprecated version are told: the best version that is better.
fn deprecation(spec: &Value, version: &Value, kind: &str) -> String {
    let (group, name) = (spec.text("group"), version.text("name"));
    let better =
        |v: &&Value| v.flag("served") && !v.flag("deprecated") && compare_versions(v.text("name"), name).is_lt();
    let mut better: Vec<_> = spec.list("versions").iter().filter(better).map(|v| v.text("name")).collect();
    better.sort_by(|a, b| compare_versions(a, b));
    let instead = better.first().map(|best| format!("; use {group}/{best} {kind}")).unwrap_or_default();
    format!("{group}/{name} {kind} is deprecated{instead}")
}

fn column(column: &Value) -> PrinterColumn {
    let shown = serde_json::json!({"name": column.text("name"), "type": column.text("type"),
    "format": column.text("format"), "priority": column.int("priority").unwrap_or(0),
    "description": match column.text("description") {
        "" => format!("Custom resource definition column (in JSONPath format): {}", column.text("jsonPath")),
        text => text.to_owned(),
    }});
    PrinterColumn { shown, kind: column.text("type").into(), path: JsonPath::parse(column.text("jsonPath")) }
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    let path = |key: &str| {
        let text = scale.text(key).trim_start_matches('.');
        text.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect()
    };
    scale.is_object().then(|| ScalePaths {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

fn selectable(version: &Value) -> Vec<&'static str> {
    let fields = version.list("selectableFields").iter();
    fields.map(|f| intern(f.text("jsonPath").trim_start_matches('.'))).collect()
}

/// Field names live as long as the server: stores compare them on every event. Each is kept once.
fn intern(text: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock();
    if let Some(found) = known.get(text) {
        return found;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    known.insert(kept);
    kept
}

/// The values of selectable fields, as text.
pub fn field_values(fields: &[&'static str], object: &Object) -> Vec<(&'static str, String)> {
    let value = |field: &str| match field.split('.').fold(object, |at, name| at.at(name)) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    fields.iter().map(|field| (*field, value(field))).collect()
}

fn store_spec(crd: &Object) -> StoreSpec {
    let spec = crd.at("spec");
    let (group, plural) = (spec.text("group"), spec.at("names").text("plural"));
    let mut fields: Vec<_> = spec.list("versions").iter().flat_map(selectable).collect();
    fields.sort_unstable();
    fields.dedup();
    let storage = spec.list("versions").iter().find(|v| v.flag("storage")).map_or("", |v| v.text("name"));
    StoreSpec {
        prefix: format!("{group}/{plural}"),
        group_resource: (group.into(), plural.into()),
        namespaced: spec.text("scope") == "Namespaced",
        durability: kv::Durability::Immediate,
        fields: Arc::new(move |object| field_values(&fields, object)),
        indexed: Vec::new(),
        api_version: format!("{group}/{storage}"),
        kind: spec.at("names").text("kind").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merge::{Facts, ListType, Shape};
    use serde_json::json;

    fn widget() -> Definition {
        let version = json!({"name": "v1", "served": true, "storage": true, "selectableFields": [{"jsonPath": ".spec.n"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "n": {"type": "integer", "default": 1},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}}}}});
        let crd = json!({"metadata": {"name": "ws.g"}, "spec": {"group": "g", "names": {"kind": "W"}},
            "status": {"storedVersions": ["v1"]}});
        definition(&crd, &version)
    }

    #[test]
    fn bodies_are_cleaned() {
        let check = |mut object: Value, want: Result<Vec<&str>, &str>| {
            let got = widget().clean(&mut object);
            let want = want.map(|l| l.into_iter().map(str::to_owned).collect::<Vec<_>>()).map_err(str::to_owned);
            assert_eq!(got, want);
        };
        check(json!({"metadata": {"name": "a"}, "spec": {"n": 1}}), Ok(vec![]));
        check(
            json!({"metadata": {"zz": 1}, "spec": {"x": 1}}),
            Ok(vec!["unknown field \"metadata.zz\"", "unknown field \"spec.x\""]),
        );
        check(
            json!({"metadata": {"name": true}}),
            Err("json: cannot unmarshal bool into Go struct field ObjectMeta.name of type string"),
        );
    }

    #[test]
    fn nodes_are_facts() {
        let widget = widget();
        let spec = widget.field(ROOT, "spec").expect("spec");
        assert_eq!(spec.shape, Shape::Struct);
        let list = widget.field(&spec.schema, "list").expect("list");
        assert_eq!((list.shape, list.list_type, list.list_map_keys), (Shape::List, ListType::Map, vec!["k".into()]));
        assert_eq!(widget.field(&spec.schema, "set").map(|f| f.list_type), Some(ListType::Set));
        assert_eq!(widget.field(&spec.schema, "nope"), None);
        assert!(widget.field(ROOT, "metadata").is_some_and(|f| f.schema.ends_with(".ObjectMeta")));
    }

    #[test]
    fn fields_are_selected() {
        let widget = widget();
        assert_eq!(field_values(&widget.selectable, &json!({"spec": {"n": 5}})), [("spec.n", "5".to_owned())]);
        assert_eq!(field_values(&widget.selectable, &json!({})), [("spec.n", String::new())]);
    }
}
