//! Whether the servers of aggregated APIs can be reached; their conditions, and what they tell of themselves.
//!
//! A check runs when the APIService, its service or an endpoint slice changes. What cannot be watched, the network
//! to a server, is looked at every half minute, and sooner after a failure.

use super::service::{ApiService, Reference};
use super::{GROUP, RESOURCE, discovery};
use crate::authn::{AUTHENTICATED, MASTERS, UserInfo};
use crate::registry::meta as system;
use crate::server::ApiServer;
use crate::store::{Preconditions, Update};
use crate::webhook::resolver::Slice;
use api::{Object, Status, meta};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

const RECHECK: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Who asks servers how they are.
pub fn aggregator() -> UserInfo {
    let groups = vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()];
    UserInfo { name: "system:kube-aggregator".into(), groups, ..UserInfo::default() }
}

/// What a check found: whether the server is available, the reason and the message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding(bool, &'static str, String);

/// What a check depends on, and when the next is due.
struct Checked {
    service: Inputs,
    due: Instant,
    retry: Duration,
}

/// The parts of the cluster a check depends on; it is due again when they differ.
#[derive(Clone, PartialEq, Eq)]
struct Inputs(Reference, String, Option<Arc<crate::webhook::resolver::Service>>, Vec<Arc<Slice>>);

/// Checks until the server is gone.
pub async fn run(server: Weak<ApiServer>) {
    let receivers = server.upgrade().map(|s| {
        let resolver = s.webhooks().resolver();
        (s.aggregator().services.versions(), resolver.services.versions(), resolver.slices.versions())
    });
    let Some((mut services, mut backends, mut slices)) = receivers else { return };
    let mut checked: HashMap<String, Checked> = HashMap::new();
    loop {
        let Some(strong) = server.upgrade() else { return };
        strong.aggregator().synced().await;
        strong.webhooks().resolver().synced().await;
        let next = check_all(&strong, &mut checked).await;
        drop(strong);
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        // The senders live as long as the server. Without remote services nothing but these objects matters.
        tokio::select! {
            _ = services.changed() => {}
            _ = backends.changed(), if next.is_some() => {}
            _ = slices.changed(), if next.is_some() => {}
            () = wait => {}
        }
    }
}

/// Checks what is due; gives the time when the next is.
async fn check_all(server: &ApiServer, checked: &mut HashMap<String, Checked>) -> Option<Instant> {
    let all = server.aggregator().services.values();
    for local in all.iter().filter(|s| s.remote.is_none() && !is_local(s)) {
        write(server, local, &Finding(true, "Local", "Local APIServices are always available".into())).await;
    }
    let remotes: Vec<_> = all.into_iter().filter(|s| s.remote.is_some()).collect();
    server.aggregator().forget_others(&remotes);
    checked.retain(|name, _| remotes.iter().any(|s| s.name == *name));
    let now = Instant::now();
    let due: Vec<_> = remotes
        .iter()
        .filter_map(|service| {
            let inputs = inputs(server, service)?;
            let is_due = checked.get(&service.name).is_none_or(|c| c.due <= now || c.service != inputs);
            is_due.then_some((service, inputs))
        })
        .collect();
    let findings = futures::future::join_all(due.iter().map(|(service, _)| check(server, service))).await;
    for ((service, inputs), available) in due.into_iter().zip(findings) {
        let before = checked.get(&service.name).filter(|c| c.service == inputs).map(|c| c.retry);
        let retry = if available { FIRST_RETRY } else { before.map_or(FIRST_RETRY, |r| (r * 2).min(RECHECK)) };
        let pause = if available { RECHECK } else { retry };
        checked.insert(service.name.clone(), Checked { service: inputs, due: Instant::now() + pause, retry });
    }
    checked.values().map(|c| c.due).min()
}

fn is_local(service: &ApiService) -> bool {
    service.condition.as_ref().is_some_and(|(status, reason, _)| status == "True" && reason == "Local")
}

fn inputs(server: &ApiServer, service: &ApiService) -> Option<Inputs> {
    let reference = service.remote.as_ref()?;
    let resolver = server.webhooks().resolver();
    let backend = resolver.services.get(&reference.namespace, &reference.name);
    Some(Inputs(reference.clone(), service.uid.clone(), backend, slices(server, reference)))
}

fn slices(server: &ApiServer, reference: &Reference) -> Vec<Arc<Slice>> {
    let all = server.webhooks().resolver().slices.in_namespace(&reference.namespace);
    all.into_iter().map(|(_, s)| s).filter(|s| s.service == reference.name).collect()
}

/// Checks a server, writes its condition, and fetches what it tells of itself.
async fn check(server: &ApiServer, service: &ApiService) -> bool {
    let Some(reference) = &service.remote else { return true };
    let finding = match found(server, reference) {
        Some(finding) => finding,
        None => probe(server, service, reference).await,
    };
    write(server, service, &finding).await;
    discovery::refresh(server, service, finding.0).await;
    finding.0
}

/// What the cluster's objects say; `None` when nothing speaks against the server.
fn found(server: &ApiServer, reference: &Reference) -> Option<Finding> {
    let Reference { namespace, name, port, .. } = reference;
    let unavailable = |reason, message| Some(Finding(false, reason, message));
    let Some(service) = server.webhooks().resolver().services.get(namespace, name) else {
        return unavailable("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    if service.kind != "ClusterIP" {
        return None;
    }
    let Some((_, port_name)) = service.ports.iter().find(|(number, _)| number == port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return unavailable("ServicePortError", message);
    };
    let slices = slices(server, reference);
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return unavailable("EndpointsNotFound", message);
    }
    let is_active = |s: &Arc<Slice>| !s.ready.is_empty() && s.ports.iter().any(|(name, _)| name == port_name);
    if !slices.iter().any(is_active) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return unavailable("MissingEndpoints", message);
    }
    None
}

/// Asks the server for what it must serve.
async fn probe(server: &ApiServer, service: &ApiService, reference: &Reference) -> Finding {
    let remote = server.aggregator().client(server, reference);
    let path = format!("/apis/{}/{}", service.group, service.version);
    let url = remote.url(&path);
    let failure = match remote.get(&path, &aggregator(), &[]).await {
        Ok((200..=299, ..)) => return Finding(true, "Passed", "all checks passed".into()),
        Ok((code, ..)) => format!("bad status from {url}: {code}"),
        Err(why) => why,
    };
    Finding(false, "FailedDiscoveryCheck", format!("failing or missing response from {url}: {failure}"))
}

/// Writes the condition, unless it says the same already.
async fn write(server: &ApiServer, service: &ApiService, finding: &Finding) {
    let Finding(available, reason, message) = finding;
    let status = if *available { "True" } else { "False" };
    let same = service.condition.as_ref().is_some_and(|(s, r, m)| s == status && r == reason && m == message);
    if same {
        return;
    }
    if let Err(error) = write_condition(server, service, status, reason, message).await
        && error.code != 404
        && error.code != 409
    {
        tracing::warn!(%error, name = service.name, "cannot write the condition of an APIService");
    }
}

async fn write_condition(
    server: &ApiServer,
    service: &ApiService,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<(), Status> {
    let store = server.store(GROUP, RESOURCE).ok_or_else(Status::no_such_path)?;
    let uid = service.uid.as_str();
    let change = |_: &_, mut object: Object| {
        if meta::uid(&object) != uid {
            return Ok(Update::Keep);
        }
        set_condition(&mut object, status, reason, message, &system::time(Timestamp::now()));
        Ok(Update::Write(object))
    };
    store.guaranteed_update("", &service.name, &Preconditions::default(), change, false).await.map(drop)
}

fn set_condition(object: &mut Object, status: &str, reason: &str, message: &str, now: &str) {
    let list = object.pointer("/status/conditions").and_then(Value::as_array);
    let mut list = list.cloned().unwrap_or_default();
    let found = list.iter().position(|c| c["type"] == "Available");
    let since = found.filter(|at| list[*at]["status"] == status).and_then(|at| list[at]["lastTransitionTime"].as_str());
    let condition = json!({"type": "Available", "status": status, "lastTransitionTime": since.unwrap_or(now),
        "reason": reason, "message": message});
    match found {
        Some(at) => list[at] = condition,
        None => list.push(condition),
    }
    object["status"]["conditions"] = list.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_time() {
        let mut object = json!({"metadata": {}, "status": {}});
        set_condition(&mut object, "False", "A", "a", "1");
        set_condition(&mut object, "False", "B", "b", "2");
        let condition = &object["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["lastTransitionTime"]), (&json!("B"), &json!("1")));
        set_condition(&mut object, "True", "Passed", "", "3");
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "3");
        assert_eq!(object["status"]["conditions"].as_array().map(Vec::len), Some(1));
    }
}
