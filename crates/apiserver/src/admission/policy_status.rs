//! The status of validating policies: warnings of a type check against the kinds they are about.

use crate::authn::UserInfo;
use crate::registry::Resource;
use crate::server::ApiServer;
use crate::store::{ObjectStore, Selection, Stored, WatchEvent, WatchOptions, WatchStart};
use api::{Object, meta};
use expression::DeclType;
use futures::StreamExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use resources::admissionregistration::expressions::{Compiler, Types};
use resources::field::Fields;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

const GROUP: &str = "admissionregistration.k8s.io";
const MANAGER: &str = "validatingadmissionpolicy-status";
const USER: &str = "system:serviceaccount:kube-system:validatingadmissionpolicy-status-controller";
/// More kinds of one policy are not checked.
const MAX_KINDS: usize = 10;

/// Starts the controller; it ends with the server.
pub fn start(server: &Arc<ApiServer>) {
    let Some(store) = server.store(GROUP, "validatingadmissionpolicies") else { return };
    let (weak, token) = (Arc::downgrade(server), server.stopping().clone());
    tokio::spawn(async move { token.run_until_cancelled(run(weak, store)).await });
}

async fn run(server: Weak<ApiServer>, store: Arc<ObjectStore>) {
    loop {
        let options =
            WatchOptions { selection: Selection::default(), start: WatchStart::InitialEvents(0), bookmarks: false };
        match store.watch(options).await {
            Ok(mut watch) => {
                while let Some(event) = watch.next().await {
                    let Some(server) = server.upgrade() else { return };
                    match event {
                        WatchEvent::Added(stored) | WatchEvent::Modified(stored) => reconcile(&server, &stored).await,
                        WatchEvent::Error(_) => break,
                        _ => {}
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot watch validating admission policies"),
        }
        // The watch ended (compaction, lag): start over, without spinning when the store is ill.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn reconcile(server: &Arc<ApiServer>, stored: &Stored) {
    let Ok(policy) = stored.object() else { return };
    let generation = meta::generation(&policy);
    if policy.at("status").int("observedGeneration").unwrap_or(0) >= generation {
        return;
    }
    let warnings = check(server, &policy);
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = warnings.into();
    }
    let name = meta::name(&policy);
    let patch = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "status": {"observedGeneration": generation, "typeChecking": checking}});
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let kind = kube::core::ApiResource {
        group: GROUP.into(),
        version: "v1".into(),
        api_version: format!("{GROUP}/v1"),
        kind: "ValidatingAdmissionPolicy".into(),
        plural: "validatingadmissionpolicies".into(),
    };
    let api: Api<DynamicObject> = Api::all_with(server.client(UserInfo::new(USER, &groups)), &kind);
    let outcome = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    match outcome {
        Ok(_) => {}
        // Gone, or changed: the next event brings it back if need be.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(%error, name, "cannot write the status of a validating admission policy"),
    }
}

/// The warnings of a policy, one for each expression that has some.
fn check(server: &ApiServer, policy: &Object) -> Vec<Value> {
    let spec = policy.at("spec");
    let mut kinds: Vec<(String, Arc<DeclType>)> = Vec::new();
    for resource in resources(server, spec) {
        if let Some(declared) = declared(&resource) {
            let gvk = resource.gvk();
            let slash = if gvk.group.is_empty() { "/" } else { "" };
            kinds.push((format!("{slash}{}, Kind={}", gvk.api_version(), gvk.kind), declared));
        }
    }
    let params = params(server, spec);
    let mut warnings = Vec::new();
    for (i, validation) in spec.list("validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.text(field);
            let found: Vec<String> = kinds
                .iter()
                .filter_map(|(name, object)| {
                    let types = Types { object: Some(object.clone()), params: params.clone() };
                    issues(spec, text, &types).map(|issues| format!("{name}: {issues}\n"))
                })
                .collect();
            if !text.is_empty() && !found.is_empty() {
                let place = format!("spec.validations[{i}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": found.join("\n")}));
            }
        }
    }
    warnings
}

/// What is wrong with an expression when its variables are of these types.
fn issues(spec: &Value, text: &str, types: &Types) -> Option<String> {
    let mut compiler = Compiler::typed(spec.has("paramKind"), types).with_variables();
    for variable in spec.list("variables") {
        // A variable that does not fit is of any type for what uses it.
        let _ = compiler.variable(variable.text("name"), variable.text("expression"));
    }
    let error = compiler.compile(text, true, resources::admissionregistration::expressions::Gives::Anything).err()?;
    Some(error.strip_prefix("compilation failed: ").unwrap_or(&error).to_owned())
}

/// The resources that the rules name without wildcards, in the order of their kinds.
fn resources(server: &ApiServer, spec: &Value) -> Vec<Arc<Resource>> {
    let mut found = BTreeMap::new();
    for rule in spec.at("matchConstraints").list("resourceRules") {
        let (groups, versions) = (rule.texts("apiGroups"), rule.texts("apiVersions"));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let plain: Vec<&str> = rule.texts("resources").into_iter().filter(|text| !text.contains(['*', '/'])).collect();
        let all = groups.iter().flat_map(|g| versions.iter().flat_map(|v| plain.iter().map(|r| (*g, *v, *r))));
        for resource in all.filter_map(|(g, v, r)| server.registry().get(g, v, r)) {
            let key = (resource.group.clone(), resource.version.clone(), resource.kind.clone());
            found.insert(key, resource);
        }
    }
    found.into_values().take(MAX_KINDS).collect()
}

fn params(server: &ApiServer, spec: &Value) -> Option<Arc<DeclType>> {
    let kind = spec.at("paramKind");
    let version = api::GroupVersion::parse(kind.text("apiVersion"))?;
    declared(&*server.registry().of_kind(&version.group, &version.version, kind.text("kind"))?)
}

/// The declared type of a kind.
fn declared(resource: &Resource) -> Option<Arc<DeclType>> {
    if let Some(custom) = &resource.custom {
        return DeclType::from_schema(&custom.source, true);
    }
    let path = match resource.group.as_str() {
        "" => format!("api/{}", resource.version),
        group => format!("apis/{group}/{}", resource.version),
    };
    let document: Value = serde_json::from_slice(&schema::openapi_v3(&path)?).ok()?;
    let schemas = document.pointer("/components/schemas")?;
    let resolve = |reference: &str| schemas.get(reference.strip_prefix("#/components/schemas/")?);
    DeclType::from_schema_with(schemas.get(resource.schema)?, true, &resolve)
}
