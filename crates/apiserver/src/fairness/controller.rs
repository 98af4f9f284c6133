//! Follows flow schemas and priority levels: applies them, restores the default ones, and says in a schema's status
//! whether its level exists.

use super::Fairness;
use super::defaults::{self, AUTO_UPDATE, GROUP, Standard};
use super::spec::{Condition, FlowSchema, PriorityLevel};
use crate::authn::{Connection, UserInfo};
use crate::body;
use crate::live::Live;
use crate::registry::Registry;
use crate::server::{ApiServer, Error, live};
use crate::store::Stored;
use api::{Object, Status, meta};
use futures::future::{join_all, try_join_all};
use http::{Method, Request};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Writes the default objects.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
/// Writes the status of flow schemas.
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
/// Demand is a matter of time, not of events: seats move after so long.
const ADJUST_EVERY: Duration = Duration::from_secs(10);
/// Servers that disagree must not write a schema's status more often than this in a minute.
const STATUS_WRITES: usize = 6;

/// The objects that configure fairness.
pub struct Objects {
    /// Flow schemas.
    pub schemas: Arc<Live<FlowSchema>>,
    /// Priority levels.
    pub levels: Arc<Live<PriorityLevel>>,
}

impl Objects {
    /// Starts to follow them.
    pub fn start(registry: &Registry, token: &CancellationToken) -> Result<Self, Error> {
        Ok(Self {
            schemas: live(registry, token, (GROUP, "flowschemas"), FlowSchema::parse)?,
            levels: live(registry, token, (GROUP, "prioritylevelconfigurations"), PriorityLevel::parse)?,
        })
    }

    /// Tells fairness what there is.
    pub fn apply(&self, fairness: &Fairness) {
        let levels = self.levels.values().iter().map(|level| (**level).clone()).collect();
        fairness.configure(levels, self.schemas.values().iter().map(|schema| (**schema).clone()).collect());
    }
}

/// Makes the default objects that are missing, and puts right those that are kept up to date.
pub async fn ensure(server: &Arc<ApiServer>) -> Result<(), Status> {
    let all = defaults::all();
    // Together, so that they share their commits.
    try_join_all(all.iter().map(|default| ensure_one(server, default))).await?;
    remove_unwanted(server, &all).await
}

async fn ensure_one(server: &Arc<ApiServer>, default: &Standard) -> Result<(), Status> {
    let Some(store) = server.store(GROUP, default.resource) else { return Ok(()) };
    let path = format!("{API}/{}", default.resource);
    let Some(present) = store.get("", default.name).await? else {
        let kind = &store.spec().kind;
        let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": {"name": default.name, "annotations": {AUTO_UPDATE: "true"}}, "spec": default.spec});
        return send(server, Method::POST, &format!("{path}?fieldManager={PRODUCER}"), "application/json", &object)
            .await;
    };
    let Some(revised) = revise(present.object()?, default) else { return Ok(()) };
    let path = format!("{path}/{}?fieldManager={PRODUCER}", default.name);
    send(server, Method::PUT, &path, "application/json", &revised).await
}

/// The object as it should be; `None` where it is that already.
fn revise(mut object: Object, default: &Standard) -> Option<Object> {
    let said = meta::annotation(&object, AUTO_UPDATE).and_then(go_bool);
    // Without a word, an object nobody has changed is kept up to date.
    let update = default.mandatory || said.unwrap_or_else(|| meta::generation(&object) == 1);
    let outdated = update && !same_spec(&object["spec"], default);
    if said == Some(update) && !outdated {
        return None;
    }
    if outdated {
        object["spec"] = default.spec.clone();
    }
    meta::set_annotation(&mut object, AUTO_UPDATE, if update { "true" } else { "false" });
    Some(object)
}

/// Of the exempt level, administrators may change the shares.
fn same_spec(present: &Value, default: &Standard) -> bool {
    if default.name == "exempt" && default.spec["type"] == "Exempt" {
        return present["type"] == "Exempt" && present["exempt"].is_object() && present["limited"].is_null();
    }
    *present == default.spec
}

fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Removes objects that an earlier version kept up to date and that are no default any more.
async fn remove_unwanted(server: &Arc<ApiServer>, all: &[Standard]) -> Result<(), Status> {
    for resource in ["flowschemas", "prioritylevelconfigurations"] {
        let Some(store) = server.store(GROUP, resource) else { continue };
        let unwanted = |stored: &Stored| {
            let known = all.iter().any(|d| d.resource == resource && d.name == stored.meta.name);
            let ours = || meta::annotation(&stored.object().ok()?, AUTO_UPDATE).and_then(go_bool);
            !known && ours() == Some(true)
        };
        for stored in store.list(crate::store::ListOptions::default()).await?.items.iter().filter(|s| unwanted(s)) {
            let version = stored.meta.resource_version.to_string();
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                "preconditions": {"uid": stored.meta.uid, "resourceVersion": version}});
            let path = format!("{API}/{resource}/{}", stored.meta.name);
            send(server, Method::DELETE, &path, "application/json", &options).await?;
        }
    }
    Ok(())
}

/// Sends a request through the chain; that somebody was faster, or the object gone, is no error.
async fn send(server: &Arc<ApiServer>, method: Method, path: &str, kind: &str, object: &Value) -> Result<(), Status> {
    let builder = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = builder.body(body::full(object.to_string())).map_err(Status::internal)?;
    let answer = crate::chain::handle(server.clone(), request, Connection::Memory(Arc::new(UserInfo::admin()))).await;
    match answer.status().as_u16() {
        200..300 | 404 | 409 => Ok(()),
        code => {
            let text = body::read(&mut answer.into_body()).await.unwrap_or_default();
            Err(Status::new(code, "", format!("{path}: {}", String::from_utf8_lossy(&text))))
        }
    }
}

/// Runs until the server is dropped.
pub async fn run(server: Weak<ApiServer>, objects: Objects) {
    let (mut schemas, mut levels) = (objects.schemas.versions(), objects.levels.versions());
    let mut adjust = tokio::time::interval(ADJUST_EVERY);
    adjust.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut writes = Writes { at: HashMap::new(), again: None };
    // What is there already counts as a change.
    schemas.mark_changed();
    loop {
        let Some(fairness) = server.upgrade().map(|server| server.fairness().clone()) else { return };
        let changed = tokio::select! {
            changed = schemas.changed() => changed.is_ok(),
            changed = levels.changed() => changed.is_ok(),
            () = fairness.drained.notified() => true,
            () = writes.due() => true,
            _ = adjust.tick() => {
                fairness.adjust();
                continue;
            }
        };
        let Some(server) = server.upgrade().filter(|_| changed) else { return };
        (schemas.mark_unchanged(), levels.mark_unchanged());
        objects.apply(&fairness);
        let present = objects.schemas.values();
        if server.is_ready()
            && let Err(error) = ensure(&server).await
        {
            tracing::warn!(%error, "cannot keep the default flow schemas and priority levels");
        }
        join_all(present.iter().filter_map(|schema| {
            let condition = dangling(schema, objects.levels.get("", level_of(schema)).is_some())?;
            writes.allow(&schema.metadata.name).then(|| write_status(&server, schema, condition))
        }))
        .await;
    }
}

fn level_of(schema: &FlowSchema) -> &str {
    &schema.spec.priority_level_configuration.name
}

/// The condition a schema should have; `None` where it has it.
fn dangling(schema: &FlowSchema, exists: bool) -> Option<Condition> {
    let level = level_of(schema);
    let text = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} ");
    let (status, reason, end) =
        if exists { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let wanted =
        Condition { r#type: "Dangling".into(), status: status.into(), reason: reason.into(), message: text + end };
    (!schema.status.conditions.contains(&wanted)).then_some(wanted)
}

async fn write_status(server: &Arc<ApiServer>, schema: &FlowSchema, condition: Condition) {
    let name = &schema.metadata.name;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name},
        "status": {"conditions": [{"type": condition.r#type, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": now}]}});
    let path = format!("{API}/flowschemas/{name}/status?fieldManager={CONSUMER}&force=true");
    if let Err(error) = send(server, Method::PATCH, &path, "application/apply-patch+yaml", &object).await {
        tracing::warn!(%error, "cannot write the status of a flow schema");
    }
}

/// Status writes of the last minute.
struct Writes {
    at: HashMap<String, Vec<Instant>>,
    again: Option<tokio::time::Instant>,
}

impl Writes {
    fn allow(&mut self, name: &str) -> bool {
        let recent = self.at.entry(name.to_owned()).or_default();
        recent.retain(|at| at.elapsed() < Duration::from_secs(60));
        if recent.len() >= STATUS_WRITES {
            let pause = Duration::from_secs(rand::random_range(30..75));
            self.again = Some(tokio::time::Instant::now() + pause);
            return false;
        }
        recent.push(Instant::now());
        true
    }

    /// Waits until a write that was put off may be tried again.
    async fn due(&mut self) {
        match self.again {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.again = None;
        self.at.retain(|_, recent| recent.iter().any(|at| at.elapsed() < Duration::from_secs(60)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kept_unless_told_otherwise() {
        let all = defaults::all();
        let default = |name: &str| all.iter().find(|d| d.resource == "flowschemas" && d.name == name).expect("default");
        let object = |annotation: Option<&str>, generation: i64, spec: &Value| {
            let mut object = json!({"metadata": {"generation": generation}, "spec": spec});
            if let Some(value) = annotation {
                meta::set_annotation(&mut object, AUTO_UPDATE, value);
            }
            object
        };
        let other = json!({"matchingPrecedence": 7});
        let check = |name: &str, present: Object, want: Option<(&str, bool)>| {
            let one = default(name);
            let got = revise(present.clone(), one);
            let got = got.as_ref().map(|o| (meta::annotation(o, AUTO_UPDATE).unwrap_or(""), o["spec"] == one.spec));
            assert_eq!(got, want, "{name} {present}");
        };
        let spec = |name: &str| default(name).spec.clone();
        check("probes", object(Some("true"), 1, &spec("probes")), None);
        check("probes", object(Some("true"), 3, &other), Some(("true", true)));
        check("probes", object(Some("false"), 3, &other), None);
        check("probes", object(None, 3, &other), Some(("false", false)));
        check("probes", object(None, 1, &other), Some(("true", true)));
        check("exempt", object(Some("false"), 3, &other), Some(("true", true)));
    }

    #[test]
    fn conditions_say_whether_the_level_exists() {
        let mut schema = FlowSchema::default();
        schema.spec.priority_level_configuration.name = "l".into();
        let found = dangling(&schema, true).expect("none yet");
        let text = "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists";
        assert_eq!((found.status.as_str(), found.reason.as_str(), found.message.as_str()), ("False", "Found", text));
        schema.status.conditions.push(found);
        assert_eq!(dangling(&schema, true), None);
        assert_eq!(dangling(&schema, false).map(|c| c.reason), Some("NotFound".into()));
    }
}
