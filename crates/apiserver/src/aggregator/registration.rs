//! The objects of what this server answers for itself: built-in versions, and those of custom resources.
//!
//! Built-in versions are registered when the server starts; who deletes one has it back with the next start.
//! Versions of custom resources are followed all the time.

use super::service::{ALWAYS, ApiService, CUSTOM, MANAGED, ON_START, built_in};
use super::{GROUP, RESOURCE};
use crate::authn::UserInfo;
use crate::bootstrap;
use crate::handlers::Request;
use crate::registry::delete::{DeleteOptions, delete};
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update};
use api::{Object, Status};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Enough to fill a batch of the store.
const CONCURRENT: usize = 32;
const PAUSE: Duration = Duration::from_secs(1);

/// Parses a custom resource definition: its group and the versions it serves.
pub fn parse_definition(stored: &Stored) -> Option<(String, Vec<String>)> {
    let object = stored.object().ok()?;
    let versions = object.pointer("/spec/versions")?.as_array()?.iter().filter(|v| v["served"] == true);
    let versions = versions.filter_map(|v| v["name"].as_str()).map(str::to_owned).collect();
    Some((object.pointer("/spec/group")?.as_str()?.to_owned(), versions))
}

/// Whether every built-in version has been registered.
pub fn complete(server: &ApiServer) -> bool {
    server.aggregator().registered.load(Ordering::Acquire)
}

/// Registers until the server is gone.
pub async fn run(server: Weak<ApiServer>) {
    let Some(mut changes) =
        server.upgrade().map(|s| (s.aggregator().definitions.versions(), s.aggregator().services.versions()))
    else {
        return;
    };
    let mut starting = true;
    loop {
        let Some(strong) = server.upgrade() else { return };
        strong.aggregator().synced().await;
        let result = sync(&strong, starting).await;
        if result.is_ok() && starting {
            strong.aggregator().registered.store(true, Ordering::Release);
            starting = false;
        }
        drop(strong);
        match result {
            Ok(()) => {
                let (definitions, services) = (changes.0.changed(), changes.1.changed());
                // The senders live as long as the server.
                tokio::select! { _ = definitions => {}, _ = services => {} }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot register what this server serves; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

type Wanted = BTreeMap<String, Object>;

fn wanted(server: &ApiServer, starting: bool) -> Wanted {
    let mut wanted = Wanted::new();
    if starting {
        for fact in schema::resources() {
            if let Some(priorities) = built_in(fact.group, fact.version) {
                add(&mut wanted, fact.group, fact.version, priorities, ON_START);
            }
        }
    }
    for definition in server.aggregator().definitions.values() {
        let (group, versions) = definition.as_ref();
        for version in versions {
            if built_in(group, version).is_none() {
                add(&mut wanted, group, version, CUSTOM, ALWAYS);
            }
        }
    }
    wanted
}

fn add(wanted: &mut Wanted, group: &str, version: &str, (in_groups, in_versions): (i64, i64), managed: &str) {
    let name = format!("{version}.{group}");
    let mut object = json!({"metadata": {"name": name, "labels": {MANAGED: managed}},
        "spec": {"version": version, "groupPriorityMinimum": in_groups, "versionPriority": in_versions}});
    if !group.is_empty() {
        object["spec"]["group"] = group.into();
    }
    wanted.entry(name).or_insert(object);
}

async fn sync(server: &ApiServer, starting: bool) -> Result<(), Status> {
    let present = server.aggregator().services.values();
    let wanted = wanted(server, starting);
    let mut steps = Vec::new();
    for (name, object) in &wanted {
        match present.iter().find(|s| s.name == *name) {
            None => steps.push(Step::Create(object)),
            Some(service) if service.managed.is_empty() || is_as(service, object) => {}
            Some(_) => steps.push(Step::Update(name, object)),
        }
    }
    let stays = |s: &ApiService| s.managed != ALWAYS && !(starting && s.managed == ON_START);
    steps.extend(present.iter().filter(|s| !stays(s) && !wanted.contains_key(&s.name)).map(|s| Step::Delete(s)));
    for page in steps.chunks(CONCURRENT) {
        futures::future::try_join_all(page.iter().map(|step| step.run(server))).await?;
    }
    Ok(())
}

/// Whether an object has the spec that is wanted.
fn is_as(service: &ApiService, wanted: &Object) -> bool {
    let spec = &wanted["spec"];
    service.remote.is_none()
        && service.group == spec["group"].as_str().unwrap_or("")
        && spec["version"] == service.version.as_str()
        && spec["groupPriorityMinimum"] == service.group_priority
        && spec["versionPriority"] == service.version_priority
}

enum Step<'a> {
    Create(&'a Object),
    Update(&'a str, &'a Object),
    Delete(&'a ApiService),
}

impl Step<'_> {
    async fn run(&self, server: &ApiServer) -> Result<(), Status> {
        match self {
            Self::Create(object) => bootstrap::ensure(server, GROUP, RESOURCE, "", (*object).clone()).await.map(drop),
            Self::Update(name, wanted) => {
                let store = server.store(GROUP, RESOURCE).ok_or_else(Status::no_such_path)?;
                let change = |_: &_, mut object: Object| {
                    object["spec"] = wanted["spec"].clone();
                    Ok(Update::Write(object))
                };
                let updated = store.guaranteed_update("", name, &Preconditions::default(), change, false).await;
                gone_is_fine(updated.map(drop))
            }
            Self::Delete(service) => {
                let row = server.registry().any_version(GROUP, RESOURCE).ok_or_else(Status::no_such_path)?;
                let request = Request::internal("delete", Arc::new(UserInfo::admin()));
                let options = DeleteOptions { uid: Some(service.uid.clone()), ..DeleteOptions::default() };
                gone_is_fine(delete(server, &request, &row, "", &service.name, &options).await.map(drop))
            }
        }
    }
}

/// Who was faster has the last word; the next change tells.
fn gone_is_fine(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(error) if error.code == 404 || error.code == 409 => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_compared() {
        let mut all = Wanted::new();
        add(&mut all, "g", "v1", CUSTOM, ALWAYS);
        add(&mut all, "", "v1", (1, 2), ON_START);
        assert_eq!(all["v1."]["spec"].get("group"), None);
        let service = |group: &str, priority: i64| ApiService {
            group: group.into(),
            version: "v1".into(),
            group_priority: 1000,
            version_priority: priority,
            ..ApiService::default()
        };
        assert!(is_as(&service("g", 100), &all["v1.g"]));
        assert!(!is_as(&service("g", 99), &all["v1.g"]));
        assert!(!is_as(&service("h", 100), &all["v1.g"]));
    }
}
