//! What the server serves, as the namespace and garbage collector controllers need to know it.

use kube::Client;
use kube::core::ApiResource;
use serde::Deserialize;

/// A resource of the preferred version of its group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// `deployments.apps`, or `pods`.
    pub fn group_resource(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// What was found, and which group versions did not answer.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    pub resources: Vec<Served>,
    pub failed: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    preferred_version: Option<Version>,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    namespaced: bool,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Asks the server for every resource of every group's preferred version (others add only what it lacks).
pub(crate) async fn resources(client: &Client) -> Result<Discovered, kube::Error> {
    let groups: Groups = get(client, "/apis").await?;
    let mut found = Discovered::default();
    add(&mut found, "v1", get::<Resources>(client, "/api/v1").await)?;
    // The core group has a path of its own, read above.
    for group in groups.groups.into_iter().filter(|group| !group.name.is_empty()) {
        let preferred = group.preferred_version.map(|v| v.group_version).unwrap_or_default();
        let others = group.versions.into_iter().map(|v| v.group_version).filter(|v| *v != preferred);
        for version in std::iter::once(preferred.clone()).chain(others).filter(|v| !v.is_empty()) {
            let answer = get::<Resources>(client, &format!("/apis/{version}")).await;
            if add(&mut found, &version, answer).is_err() {
                found.failed.push(version);
            }
        }
    }
    Ok(found)
}

fn add(found: &mut Discovered, group_version: &str, answer: Result<Resources, kube::Error>) -> Result<(), kube::Error> {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    for resource in answer?.resources.into_iter().filter(|r| !r.name.contains('/')) {
        if found.resources.iter().any(|s| s.resource.group == group && s.resource.plural == resource.name) {
            continue;
        }
        let api = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: group_version.into(),
            kind: resource.kind,
            plural: resource.name,
        };
        found.resources.push(Served { resource: api, namespaced: resource.namespaced, verbs: resource.verbs });
    }
    Ok(())
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, kube::Error> {
    let request = http::Request::get(path).header("accept", "application/json").body(Vec::new());
    client.request(request.map_err(kube::Error::HttpError)?).await
}
