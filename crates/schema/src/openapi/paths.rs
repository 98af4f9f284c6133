//! Paths and operations of a group version, derived from its resources.

use super::components::Flavour;
use super::custom::CustomKind;
use crate::resources::{ResourceFact, resources};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PRODUCES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const LIST: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETE: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// What stands before a resource in its path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Cluster,
    Namespace,
    AllNamespaces,
}

/// One operation, before it is put into the words of v2 or v3.
struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    /// Schema of the request's body.
    body: Option<String>,
    required: bool,
    consumes: &'static [&'static str],
    /// Schema of the answer, `string` for connections.
    answer: String,
    streams: bool,
    codes: &'static [&'static str],
    query: Vec<(&'static str, &'static str)>,
}

/// A path with its operations.
pub(super) struct PathItem {
    pub(super) path: String,
    /// Group, version and kind of what it speaks of.
    gvk: Value,
    tag: String,
    /// Whether protobuf is spoken.
    protobuf: bool,
    operations: Vec<Operation>,
}

impl PathItem {
    fn new(path: String, fact: &ResourceFact, operations: Vec<Operation>) -> Self {
        let gvk = json!({"group": fact.kind_group, "version": fact.kind_version, "kind": fact.kind});
        Self { path, gvk, tag: tag(fact.group, fact.version), protobuf: true, operations }
    }
}

/// `/api/v1` or `/apis/apps/v1`.
fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// Every path of a group version, sorted.
pub(super) fn paths(group: &str, version: &str) -> Vec<PathItem> {
    let mut out = Vec::new();
    for fact in resources().iter().filter(|r| r.group == group && r.version == version) {
        if fact.subresource.is_empty() { resource_paths(fact, &mut out) } else { subresource_paths(fact, &mut out) }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

fn resource_paths(fact: &'static ResourceFact, out: &mut Vec<PathItem>) {
    let (base, plural) = (base(fact.group, fact.version), fact.resource);
    let (place, collection) = match fact.namespaced {
        true => (Place::Namespace, format!("{base}/namespaces/{{namespace}}/{plural}")),
        false => (Place::Cluster, format!("{base}/{plural}")),
    };
    let mut push = |path: String, operations: Vec<Operation>| {
        if !operations.is_empty() {
            out.push(PathItem::new(path, fact, operations));
        }
    };
    let pick = |verbs: &[&'static str]| {
        verbs.iter().filter(|v| fact.has_verb(v)).filter_map(|v| operation(fact, v, place)).collect::<Vec<_>>()
    };
    push(collection.clone(), pick(&["list", "create", "deletecollection"]));
    push(format!("{collection}/{{name}}"), pick(&["get", "update", "patch", "delete"]));
    if fact.namespaced && fact.has_verb("list") {
        push(format!("{base}/{plural}"), operation(fact, "list", Place::AllNamespaces).into_iter().collect());
    }
}

/// The paths of a custom resource, in the words of v2 or v3.
pub(super) fn custom(kind: &CustomKind<'_>, flavour: Flavour) -> Vec<(String, Value)> {
    let base = base(kind.group, kind.version);
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", kind.plural);
    let place = if kind.namespaced { Place::Namespace } else { Place::Cluster };
    let mut items = vec![
        (collection.clone(), "", &["list", "create", "deletecollection"][..], place),
        (format!("{collection}/{{name}}"), "", &["get", "update", "patch", "delete"], place),
    ];
    if kind.namespaced {
        items.push((format!("{base}/{}", kind.plural), "", &["list"], Place::AllNamespaces));
    }
    for (name, _) in [("status", kind.status), ("scale", kind.scale)].into_iter().filter(|(_, served)| *served) {
        items.push((format!("{collection}/{{name}}/{name}"), name, &["get", "update", "patch"], place));
    }
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let render = |(path, sub, verbs, place): (String, &str, &[&'static str], Place)| {
        let operations = verbs.iter().filter_map(|verb| custom_operation(kind, verb, sub, place)).collect();
        let tag = tag(kind.group, kind.version);
        let item = PathItem { path: path.clone(), gvk: gvk.clone(), tag, protobuf: false, operations };
        (path, item.render(flavour))
    };
    items.into_iter().map(render).collect()
}

fn custom_operation(kind: &CustomKind<'_>, verb: &'static str, sub: &str, place: Place) -> Option<Operation> {
    let fact = ResourceFact {
        group: "",
        version: "",
        resource: "",
        subresource: "",
        kind: "Pod",
        kind_group: "",
        kind_version: "v1",
        namespaced: kind.namespaced,
        verbs: &[],
        short_names: &[],
        categories: &[],
        singular: "",
    };
    // The operation of a built-in kind, with what differs put in its place.
    let mut operation = operation(&fact, verb, place)?;
    let model = match sub {
        "scale" => "io.k8s.api.autoscaling.v1.Scale".to_owned(),
        _ => kind.model(kind.kind),
    };
    match verb {
        "list" => operation.answer = kind.model(kind.list_kind),
        "delete" | "deletecollection" => {}
        _ => operation.answer = model.clone(),
    }
    match verb {
        "create" | "update" => {
            operation.body = Some(model);
            operation.consumes = &PRODUCES[..2];
        }
        "patch" => operation.consumes = &CUSTOM_PATCHES,
        _ => {}
    }
    operation.streams = false;
    operation.id = format!(
        "{}{}{}{}{}{}{}{}",
        match verb {
            "get" => "read",
            "update" => "replace",
            "deletecollection" => "delete",
            verb => verb,
        },
        group_words(kind.group),
        capitalized(kind.version),
        if verb == "deletecollection" { "Collection" } else { "" },
        if place == Place::Namespace { "Namespaced" } else { "" },
        kind.kind,
        capitalized(sub),
        if place == Place::AllNamespaces { "ForAllNamespaces" } else { "" },
    );
    Some(operation)
}

fn subresource_paths(fact: &'static ResourceFact, out: &mut Vec<PathItem>) {
    let (base, plural, sub) = (base(fact.group, fact.version), fact.resource, fact.subresource);
    let (place, namespace) = match fact.namespaced {
        true => (Place::Namespace, "namespaces/{namespace}/"),
        false => (Place::Cluster, ""),
    };
    let path = format!("{base}/{namespace}{plural}/{{name}}/{sub}");
    let connects = fact.kind.ends_with("Options");
    let operations = |with_path: bool| -> Vec<Operation> {
        fact.verbs
            .iter()
            .filter_map(|v| if connects { connect(fact, v, with_path) } else { operation(fact, v, place) })
            .collect()
    };
    if sub == "proxy" {
        out.push(PathItem::new(format!("{path}/{{path}}"), fact, operations(true)));
    }
    out.push(PathItem::new(path, fact, operations(false)));
}

fn operation(fact: &ResourceFact, verb: &str, place: Place) -> Option<Operation> {
    let kind = fact.schema().map(|s| s.name().to_owned())?;
    let list = format!("{kind}List");
    let status = || format!("{META}.Status");
    let (method, action, word): (_, _, &str) = match verb {
        "get" => ("get", "get", "read"),
        "list" => ("get", "list", "list"),
        "create" => ("post", "post", "create"),
        "update" => ("put", "put", "replace"),
        "patch" => ("patch", "patch", "patch"),
        "delete" => ("delete", "delete", "delete"),
        "deletecollection" => ("delete", "deletecollection", "delete"),
        _ => return None,
    };
    let (body, required, consumes): (_, _, &'static [&'static str]) = match verb {
        "create" | "update" => (Some(kind.clone()), true, &["*/*"]),
        "patch" => (Some(format!("{META}.Patch")), true, &PATCHES),
        "delete" | "deletecollection" => (Some(format!("{META}.DeleteOptions")), false, &["*/*"]),
        _ => (None, false, &["*/*"]),
    };
    let answer = match verb {
        "list" => list,
        "delete" | "deletecollection" => status(),
        _ if fact.subresource == "log" => "string".into(),
        _ => kind,
    };
    let codes: &[&str] = match verb {
        "create" => &["200", "201", "202"],
        "update" | "patch" => &["200", "201"],
        "delete" => &["200", "202"],
        _ => &["200"],
    };
    Some(Operation {
        method,
        action,
        id: operation_id(fact, word, verb == "deletecollection", place),
        body,
        required,
        consumes,
        answer,
        streams: verb == "list",
        codes,
        query: query(fact, verb),
    })
}

fn query(fact: &ResourceFact, verb: &str) -> Vec<(&'static str, &'static str)> {
    let mut out: Vec<_> = match verb {
        "list" => LIST.to_vec(),
        "create" | "update" => WRITE.to_vec(),
        "patch" => [&WRITE[..], &[("force", "boolean")]].concat(),
        "delete" => DELETE.to_vec(),
        "deletecollection" => {
            let list = LIST.iter().filter(|(name, _)| !matches!(*name, "watch" | "allowWatchBookmarks"));
            list.chain(&DELETE).copied().collect()
        }
        _ if fact.subresource == "log" => vec![
            ("container", "string"),
            ("follow", "boolean"),
            ("insecureSkipTLSVerifyBackend", "boolean"),
            ("limitBytes", "integer"),
            ("previous", "boolean"),
            ("sinceSeconds", "integer"),
            ("stream", "string"),
            ("tailLines", "integer"),
            ("timestamps", "boolean"),
        ],
        _ => Vec::new(),
    };
    out.sort_unstable();
    out
}

fn connect(fact: &ResourceFact, verb: &str, with_path: bool) -> Option<Operation> {
    let (method, word) = match verb {
        "get" => ("get", "connectGet"),
        "create" => ("post", "connectPost"),
        "update" => ("put", "connectPut"),
        "patch" => ("patch", "connectPatch"),
        "delete" => ("delete", "connectDelete"),
        _ => return None,
    };
    let place = if fact.namespaced { Place::Namespace } else { Place::Cluster };
    let id = operation_id(fact, word, false, place) + if with_path { "WithPath" } else { "" };
    let query: &[_] = match fact.subresource {
        "exec" | "attach" => &[
            ("command", "string"),
            ("container", "string"),
            ("stderr", "boolean"),
            ("stdin", "boolean"),
            ("stdout", "boolean"),
            ("tty", "boolean"),
        ],
        "portforward" => &[("ports", "integer")],
        _ => &[("path", "string")],
    };
    let query = query.iter().filter(|(name, _)| *name != "command" || fact.subresource == "exec").copied().collect();
    Some(Operation {
        method,
        action: "connect",
        id,
        body: None,
        required: false,
        consumes: &["*/*"],
        answer: "string".into(),
        streams: false,
        codes: &["200"],
        query,
    })
}

/// `Core`, `RbacAuthorization`.
pub(super) fn group_words(group: &str) -> String {
    match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => "Core".into(),
        short => short.split('.').map(capitalized).collect(),
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn operation_id(fact: &ResourceFact, word: &str, collection: bool, place: Place) -> String {
    let (verb, connect) = word.strip_prefix("connect").map_or((word, ""), |method| ("connect", method));
    let owner = resources().iter().find(|r| {
        r.group == fact.group && r.version == fact.version && r.resource == fact.resource && r.subresource.is_empty()
    });
    format!(
        "{verb}{}{}{connect}{}{}{}{}{}",
        group_words(fact.group),
        capitalized(fact.version),
        if collection { "Collection" } else { "" },
        if place == Place::Namespace { "Namespaced" } else { "" },
        owner.map_or(fact.kind, |o| o.kind),
        capitalized(fact.subresource),
        if place == Place::AllNamespaces { "ForAllNamespaces" } else { "" },
    )
}

impl PathItem {
    pub(super) fn render(&self, flavour: Flavour) -> Value {
        let mut out: Map<String, Value> =
            self.operations.iter().map(|o| (o.method.to_owned(), self.operation(o, flavour))).collect();
        let mut parameters: Vec<Value> = Vec::new();
        for name in ["name", "namespace", "path"] {
            if self.path.contains(&format!("{{{name}}}")) {
                parameters.push(parameter(name, "string", "path", flavour));
            }
        }
        parameters.push(parameter("pretty", "string", "query", flavour));
        out.insert("parameters".into(), parameters.into());
        out.into()
    }

    fn operation(&self, op: &Operation, flavour: Flavour) -> Value {
        let mut out = json!({
            "operationId": op.id,
            "tags": [self.tag],
            "x-kubernetes-action": op.action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        let mut parameters: Vec<Value> =
            op.query.iter().map(|(name, ty)| parameter(name, ty, "query", flavour)).collect();
        if let Some(body) = &op.body {
            let schema = flavour.reference(body);
            match flavour {
                Flavour::V2 => {
                    let mut body = json!({"name": "body", "in": "body", "schema": schema});
                    if op.required {
                        body["required"] = true.into();
                    }
                    parameters.insert(0, body);
                }
                Flavour::V3 => {
                    let content: Map<String, Value> =
                        op.consumes.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
                    out["requestBody"] = json!({"content": content});
                    if op.required {
                        out["requestBody"]["required"] = true.into();
                    }
                }
            }
        }
        if !parameters.is_empty() {
            out["parameters"] = parameters.into();
        }
        out["responses"] = responses(op, flavour, self.protobuf);
        if flavour == Flavour::V2 {
            out["consumes"] = json!(op.consumes);
            out["produces"] = json!(media_types(op, self.protobuf));
            out["schemes"] = json!(["https"]);
        }
        out
    }
}

fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", uncapitalized(&group_words(group)))
}

pub(super) fn uncapitalized(words: &str) -> String {
    let mut chars = words.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

fn media_types(op: &Operation, protobuf: bool) -> Vec<&'static str> {
    match (op.answer.as_str(), op.streams) {
        ("string", _) => vec!["*/*"],
        _ if !protobuf => PRODUCES[..2].to_vec(),
        (_, true) => PRODUCES.into_iter().chain(STREAMS).collect(),
        (_, false) => PRODUCES.to_vec(),
    }
}

fn responses(op: &Operation, flavour: Flavour, protobuf: bool) -> Value {
    let schema = match op.answer.as_str() {
        "string" => json!({"type": "string"}),
        name => flavour.reference(name),
    };
    let mut out = Map::new();
    for code in op.codes {
        let description = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let answer = match flavour {
            Flavour::V2 => json!({"description": description, "schema": schema}),
            Flavour::V3 => {
                let content: Map<String, Value> =
                    media_types(op, protobuf).into_iter().map(|m| (m.to_owned(), json!({"schema": schema}))).collect();
                json!({"description": description, "content": content})
            }
        };
        out.insert((*code).to_owned(), answer);
    }
    out.insert("401".into(), json!({"description": "Unauthorized"}));
    out.into()
}

fn parameter(name: &str, ty: &str, place: &str, flavour: Flavour) -> Value {
    let mut out = json!({"name": name, "in": place});
    match flavour {
        Flavour::V2 => {
            out["type"] = ty.into();
            out["uniqueItems"] = true.into();
        }
        Flavour::V3 => out["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    if place == "path" {
        out["required"] = true.into();
    }
    out
}
