//! The documents of what is no group version: the lists of versions and groups, the server's version, the issuer of tokens.

use super::components::{Closure, Flavour};
use super::descriptions::Descriptions;
use super::{definitions, group_versions, paths, security};
use crate::types::Schema;
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
const MACHINE: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];

/// One path, and what a get of it answers; without a schema, a text.
pub(super) struct Root {
    pub(super) path: String,
    tag: String,
    id: String,
    description: &'static str,
    media_types: &'static [&'static str],
    schema: String,
}

impl Root {
    fn list(path: &str, tag: &str, id: &str, kind: &str) -> Self {
        Self {
            path: path.into(),
            tag: tag.into(),
            id: id.into(),
            description: "get available API versions",
            media_types: &MACHINE,
            schema: format!("{META}.{kind}"),
        }
    }

    fn group(group: &str) -> Self {
        let words = paths::group_words(group);
        Self {
            description: "get information of a group",
            ..Self::list(
                &format!("apis/{group}"),
                &paths::uncapitalized(&words),
                &format!("get{words}APIGroup"),
                "APIGroup",
            )
        }
    }

    /// The document.
    pub(super) fn document(&self) -> Value {
        let mut closure = Closure::default();
        Schema::find(&self.schema).into_iter().for_each(|schema| closure.add(schema));
        let texts = Descriptions::unpack();
        let mut schemas: Map<_, _> = definitions(&closure, Flavour::V3, &texts, &[("", "v1")]).collect();
        if self.schema == VERSION {
            schemas.insert(VERSION.into(), version());
        }
        let schema = match self.schema.as_str() {
            "" => json!({"type": "string"}),
            name => Flavour::V3.reference(name),
        };
        let content: Map<_, _> =
            self.media_types.iter().map(|name| ((*name).to_owned(), json!({"schema": schema}))).collect();
        let get = json!({"tags": [self.tag], "description": self.description, "operationId": self.id, "responses":
            {"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}}});
        let mut components = json!({"securitySchemes": security()});
        if !schemas.is_empty() {
            components["schemas"] = schemas.into();
        }
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"},
            "paths": {format!("/{}/", self.path): {"get": get}}, "components": components})
    }
}

/// All of them.
pub(super) fn roots() -> Vec<Root> {
    let mut groups: Vec<&str> =
        group_versions().into_iter().map(|(group, _)| group).filter(|g| !g.is_empty()).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut all: Vec<Root> = groups.into_iter().map(Root::group).collect();
    all.push(Root::list("api", "core", "getCoreAPIVersions", "APIVersions"));
    all.push(Root::list("apis", "apis", "getAPIVersions", "APIGroupList"));
    all.push(Root {
        description: "get the version information for this server",
        media_types: &MACHINE[..1],
        schema: VERSION.into(),
        ..Root::list("version", "version", "getCodeVersion", "")
    });
    all.push(Root {
        description: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        media_types: &MACHINE[..1],
        schema: String::new(),
        ..Root::list(".well-known/openid-configuration", "WellKnown", "getServiceAccountIssuerOpenIDConfiguration", "")
    });
    all.push(Root {
        description: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        media_types: &["application/jwk-set+json"],
        schema: String::new(),
        ..Root::list("openid/v1/jwks", "openid", "getServiceAccountIssuerOpenIDKeyset", "")
    });
    all
}

/// The schema of the answer of `/version`, which is no API object.
fn version() -> Value {
    let required =
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    let mut properties: Map<_, _> =
        required.iter().map(|name| ((*name).to_owned(), json!({"type": "string", "default": ""}))).collect();
    for (name, text) in [
        ("major", "Major is the major version of the binary version"),
        ("minor", "Minor is the minor version of the binary version"),
    ] {
        properties[name]["description"] = text.into();
    }
    for (name, text) in [
        ("emulationMajor", "EmulationMajor is the major version of the emulation version"),
        ("emulationMinor", "EmulationMinor is the minor version of the emulation version"),
        ("minCompatibilityMajor", "MinCompatibilityMajor is the major version of the minimum compatibility version"),
        ("minCompatibilityMinor", "MinCompatibilityMinor is the minor version of the minimum compatibility version"),
    ] {
        properties.insert(name.into(), json!({"type": "string", "description": text}));
    }
    let description = "Info contains versioning information. how we'll want to distribute that information.";
    json!({"type": "object", "description": description, "required": required, "properties": properties})
}
