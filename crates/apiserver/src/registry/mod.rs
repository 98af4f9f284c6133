//! The registry: one [`Resource`] for each served resource, and the generic way of a write.
//!
//! [`create`], [`update`] and [`delete`] are what handlers, subresources and the server's own parts call; each
//! runs decode → default → mutating admission → prepare → validate → validating admission → store.
//! A resource whose version is not the stored one converts on the way in and out.

mod access;
pub mod create;
pub mod decode;
pub mod delete;
pub mod facts;
pub mod meta;
pub mod update;
pub mod yaml;

use crate::custom::{Behaviour, Definition};
use crate::store::members::Members;
use crate::store::{Dispatcher, ObjectStore, StoreSpec, Stored};
use api::{Gvk, Object, Status};
use bytes::Bytes;
use parking_lot::RwLock;
use resources::table::{Conversion, Row};
use schema::ResourceFact;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A served resource.
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Kind.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs served.
    pub verbs: Vec<String>,
    /// Its subresources: name, and the kind and verbs of each.
    pub subresources: Vec<&'static ResourceFact>,
    /// Behaviour.
    pub strategy: Behaviour,
    /// Objects.
    pub store: Arc<ObjectStore>,
    /// Name of the schema of the kind.
    pub schema: &'static str,
    /// How this version differs from the stored one.
    pub convert: Option<&'static Conversion>,
    /// Whether items of a list carry `apiVersion` and `kind` (custom resources).
    pub typed_items: bool,
    /// What it is made from, for a custom resource.
    pub custom: Option<Arc<Definition>>,
}

impl Resource {
    /// `apps/v1`
    pub fn api_version(&self) -> String {
        api::GroupVersion::new(&self.group, &self.version).to_string()
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(&self.group, &self.version, &self.kind)
    }

    /// Whether these are Kubernetes' own events, of either group.
    pub fn is_events(&self) -> bool {
        self.custom.is_none() && self.resource == "events" && matches!(self.group.as_str(), "" | "events.k8s.io")
    }

    /// Whether the verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// A subresource.
    pub fn subresource(&self, name: &str) -> Option<&'static ResourceFact> {
        self.subresources.iter().find(|s| s.subresource == name).copied()
    }

    /// A stored object as a get answers it.
    pub fn whole(&self, stored: &Stored) -> Result<Bytes, Status> {
        match self.shows_stored() {
            true => Ok(stored.json.clone()),
            false => Ok(serde_json::to_vec(&self.whole_object(stored)?).map_err(Status::internal)?.into()),
        }
    }

    /// As [`Resource::whole`], parsed.
    pub fn whole_object(&self, stored: &Stored) -> Result<Object, Status> {
        let mut object = stored.object()?;
        if let Some(conversion) = self.convert {
            (conversion.from_stored)(&mut object);
            self.set_type(&mut object);
        }
        if let Some(custom) = self.custom.as_ref().filter(|c| !c.as_stored) {
            custom.read(&mut object);
            self.set_type(&mut object);
        }
        Ok(object)
    }

    /// Whether stored objects are what a get answers.
    pub fn shows_stored(&self) -> bool {
        self.convert.is_none() && self.custom.as_ref().is_none_or(|c| c.as_stored)
    }

    /// Decodes an object that a patch has made, in place; gives the strict errors.
    pub fn decode(&self, object: &mut Object) -> Result<Vec<String>, String> {
        match &self.custom {
            None => schema::decode(self.schema, object, decode::canonical_quantity),
            Some(custom) => custom.clean(object),
        }
    }

    /// As [`Resource::decode`] for what a merge has made of maps, which Go converts to types by other rules.
    pub fn decode_merged(&self, object: &mut Object) -> Result<Vec<String>, String> {
        match &self.custom {
            None => schema::convert(self.schema, object, decode::canonical_quantity),
            Some(custom) => custom.clean(object),
        }
    }

    /// What merging needs to know of the kind.
    pub fn facts(&self) -> &dyn merge::Facts {
        match &self.custom {
            None => &facts::BuiltIn,
            Some(custom) => &**custom,
        }
    }

    /// Kind of lists.
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.kind), |c| c.list_kind.clone())
    }

    /// Appends a stored object as lists hold it: without `apiVersion` and `kind`.
    pub fn append_item(&self, stored: &Stored, out: &mut Vec<u8>) -> Result<(), Status> {
        let whole = self.whole(stored)?;
        if self.typed_items {
            out.extend_from_slice(&whole);
        } else {
            append_without_type(&whole, out);
        }
        Ok(())
    }

    /// Sets `apiVersion` and `kind`.
    pub fn set_type(&self, object: &mut Object) {
        if let Value::Object(map) = object {
            map.insert("apiVersion".into(), self.api_version().into());
            map.insert("kind".into(), self.kind.clone().into());
        }
    }

    /// An object of this version in the form it is stored in; one that has that form stays as it is.
    pub fn to_stored(&self, mut object: Object) -> Object {
        if let Some(conversion) = self.convert
            && object.get("apiVersion").and_then(Value::as_str) != Some(conversion.stored)
        {
            (conversion.to_stored)(&mut object);
        }
        object
    }

    /// Name of the schema of the kind in the version it is stored in.
    pub fn stored_schema(&self) -> &'static str {
        let stored = self.convert.and_then(|conversion| api::GroupVersion::parse(conversion.stored));
        stored.and_then(|gv| schema::schema_name(&gv.group, &gv.version, &self.kind)).unwrap_or(self.schema)
    }

    /// Adds the fields Go sends always, and drops what is empty; a converted object was completed in its served form.
    pub fn complete(&self, object: &mut Object) {
        if self.convert.is_none() {
            schema::complete(self.schema, object);
        }
    }

    /// 400 for a field that selectors cannot name.
    pub fn unknown_field(&self, field: &str) -> String {
        if (self.group.as_str(), self.resource.as_str()) == ("batch", "jobs") {
            return format!("field label {field} not supported for Job", field = api::quoted(field));
        }
        if self.custom.is_some() {
            return format!("field label not supported: {field}");
        }
        if self.resource == "resourceslices" {
            return format!("field label not supported for {}, Kind={}: {field}", self.api_version(), self.kind);
        }
        match self.strategy.selectable_fields(&serde_json::json!({})).is_empty() {
            true => format!(
                "{field} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                field = api::quoted(field)
            ),
            false => format!("field label not supported: {field}"),
        }
    }

    /// 404 for one of its objects.
    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.group, &self.resource, name)
    }
}

/// Copies canonical JSON but for its members `apiVersion` and `kind`.
fn append_without_type(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.push(b'{');
    for member in Members::new(json, 1) {
        let key = &json[member.key.0..member.key.1];
        if key == b"apiVersion" || key == b"kind" {
            continue;
        }
        if out.len() > start + 1 {
            out.push(b',');
        }
        let quote = member.key.0 - 1;
        // Keys are sorted: nothing to leave out comes after `kind`.
        if key > b"kind".as_slice() {
            return out.extend_from_slice(&json[quote..]);
        }
        out.extend_from_slice(&json[quote..member.value.1]);
    }
    out.push(b'}');
}

type Key = (String, String, String);

/// Every resource that is stored and served.
pub struct Registry {
    rows: RwLock<HashMap<Key, Arc<Resource>>>,
    dispatcher: Arc<Dispatcher>,
}

impl Registry {
    /// The registry of the built-in kinds.
    pub fn new(dispatcher: &Arc<Dispatcher>) -> Self {
        let mut stores = HashMap::new();
        let mut rows = HashMap::new();
        // Rows that own their storage come before those that convert to it.
        let (own, converting): (Vec<_>, Vec<_>) = resources::table::ROWS.iter().partition(|r| r.convert.is_none());
        for row in own.into_iter().chain(converting) {
            let Some(resource) = built_in(row, dispatcher, &mut stores) else {
                tracing::error!(row.group, row.resource, "a resource without facts is not served");
                continue;
            };
            let key = (row.group.to_owned(), row.version.to_owned(), row.resource.to_owned());
            rows.insert(key, Arc::new(resource));
        }
        Self { rows: RwLock::new(rows), dispatcher: dispatcher.clone() }
    }

    /// What feeds the stores.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// A resource.
    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        self.rows.read().get(&(group.to_owned(), version.to_owned(), resource.to_owned())).cloned()
    }

    /// A resource in whichever version is stored.
    pub fn any_version(&self, group: &str, resource: &str) -> Option<Arc<Resource>> {
        let rows = self.rows.read();
        let mut found = rows.values().filter(|r| r.group == group && r.resource == resource);
        found
            .clone()
            .find(|r| r.convert.is_none() && r.custom.as_ref().is_none_or(|c| c.storage))
            .or_else(|| found.next())
            .cloned()
    }

    /// The resource of a kind.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        let rows = self.rows.read();
        rows.values().find(|r| r.group == group && r.version == version && r.kind == kind).cloned()
    }

    /// Every resource.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.rows.read().values().cloned().collect()
    }

    /// Adds or replaces a resource (custom resources).
    pub fn insert(&self, resource: Arc<Resource>) {
        let key = (resource.group.clone(), resource.version.clone(), resource.resource.clone());
        self.rows.write().insert(key, resource);
    }

    /// Removes a resource.
    pub fn remove(&self, group: &str, version: &str, resource: &str) {
        self.rows.write().remove(&(group.to_owned(), version.to_owned(), resource.to_owned()));
    }
}

fn built_in(
    row: &'static Row,
    dispatcher: &Arc<Dispatcher>,
    stores: &mut HashMap<&'static str, Arc<ObjectStore>>,
) -> Option<Resource> {
    let fact = schema::resource(row.group, row.version, row.resource, "")?;
    let api_version = api::GroupVersion::new(row.group, row.version).to_string();
    let store = stores.entry(row.storage).or_insert_with(|| {
        let stored_version = row.convert.map_or(api_version.as_str(), |c| c.stored);
        ObjectStore::new(dispatcher, spec(row, fact, stored_version))
    });
    let subresources = schema::resources().iter();
    let subresources = subresources
        .filter(|f| f.group == row.group && f.version == row.version && f.resource == row.resource)
        .filter(|f| !f.subresource.is_empty());
    Some(Resource {
        group: row.group.into(),
        version: row.version.into(),
        resource: row.resource.into(),
        kind: fact.kind.into(),
        namespaced: fact.namespaced,
        verbs: fact.verbs.iter().map(|v| (*v).to_owned()).collect(),
        subresources: subresources.collect(),
        strategy: Behaviour::BuiltIn(row.strategy),
        store: store.clone(),
        schema: fact.schema()?.name(),
        convert: row.convert,
        typed_items: false,
        custom: None,
    })
}

fn spec(row: &'static Row, fact: &'static ResourceFact, api_version: &str) -> StoreSpec {
    let strategy = row.strategy;
    let relaxed =
        matches!((row.group, row.resource), ("" | "events.k8s.io", "events") | ("coordination.k8s.io", "leases"));
    let indexed = if row.resource == "pods" { vec!["spec.nodeName"] } else { Vec::new() };
    StoreSpec {
        prefix: row.storage.into(),
        group_resource: (row.group.into(), row.resource.into()),
        namespaced: fact.namespaced,
        durability: if relaxed { kv::Durability::Relaxed } else { kv::Durability::Immediate },
        fields: Arc::new(move |object| strategy.selectable_fields(object)),
        indexed,
        api_version: api_version.into(),
        kind: fact.kind.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_lose_their_type() {
        let table = [
            (
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{}}"#,
                r#"{"metadata":{"name":"a"},"spec":{}}"#,
            ),
            (
                r#"{"apiVersion":"v1","data":{"kind":"x\"}"},"kind":"C","metadata":{}}"#,
                r#"{"data":{"kind":"x\"}"},"metadata":{}}"#,
            ),
            (r#"{"apiVersion":"v1","count":1,"kind":"E"}"#, r#"{"count":1}"#),
            (r#"{"apiVersion":"v1","kind":"E"}"#, "{}"),
        ];
        for (json, want) in table {
            let mut out = Vec::new();
            append_without_type(json.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }
}
