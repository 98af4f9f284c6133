//! Views: a store whose objects are shown in another version than they are stored in, where only somebody else knows
//! how to convert them.
//!
//! A view shares the cacher of its store. What it reads is converted on the way out, what it writes on the way in.
//! Each state of an object is converted once: the newest ones are kept.

use super::encode::{parse_meta, with_resource_version};
use super::{FieldsFn, ListOptions, ListResult, ObjectStore, Selection, StoreSpec, Stored, WatchEvent, WatchStart};
use api::selector::FieldSelector;
use api::{Object, Status, meta};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Objects whose newest converted state is kept.
const KEPT_MAX: usize = 8192;

/// Converts objects between the version that is shown and the one that is stored.
pub trait Convert: Send + Sync {
    /// Converts objects, all at once, to an `apiVersion`; those that have it already stay as they are.
    fn convert(&self, objects: Vec<Object>, api_version: String) -> BoxFuture<'_, Result<Vec<Object>, Status>>;
}

/// How a store's objects are shown.
pub(super) struct View {
    converter: Arc<dyn Convert>,
    /// As the store's, but for the version and the selectable fields.
    spec: StoreSpec,
    stored_version: String,
    /// The converted states, by UID.
    kept: Mutex<HashMap<String, Stored>>,
}

impl ObjectStore {
    /// The same objects in another version.
    pub fn view(self: &Arc<Self>, api_version: &str, fields: FieldsFn, converter: Arc<dyn Convert>) -> Arc<Self> {
        let stored_version = self.spec().api_version.clone();
        let spec = StoreSpec { api_version: api_version.into(), fields, ..self.spec().clone() };
        let view = View { converter, spec, stored_version, kept: Mutex::default() };
        Arc::new(Self { view: Some(Arc::new(view)), ..self.shared() })
    }

    /// The store of a view, with its objects as they are stored.
    pub fn stored(self: &Arc<Self>) -> Arc<Self> {
        if self.view.is_none() { self.clone() } else { Arc::new(self.shared()) }
    }

    /// An object of another version as it is shown here; without a view it stays as it is.
    pub async fn translated(&self, object: Object) -> Result<Object, Status> {
        let Some(view) = &self.view else { return Ok(object) };
        let mut out = view.converter.convert(vec![object], view.spec.api_version.clone()).await?;
        out.pop().ok_or_else(none)
    }

    fn shared(&self) -> Self {
        let (codec, dispatcher, cacher) = (self.codec.clone(), self.dispatcher.clone(), self.cacher.clone());
        Self { codec, dispatcher, cacher, view: None }
    }

    /// Objects as they are shown.
    pub(super) async fn show(&self, items: Vec<Stored>) -> Result<Vec<Stored>, Status> {
        match &self.view {
            Some(view) => view.show(items).await,
            None => Ok(items),
        }
    }

    /// One object as it is shown.
    pub(super) async fn show_one(&self, stored: Stored) -> Result<Stored, Status> {
        match &self.view {
            Some(view) => view.show_one(stored).await,
            None => Ok(stored),
        }
    }

    /// An object as it is stored.
    pub(super) async fn unshow(&self, object: Object) -> Result<Object, Status> {
        match &self.view {
            Some(view) => view.convert(vec![object], &view.stored_version).await?.pop().ok_or_else(none),
            None => Ok(object),
        }
    }

    /// A list of a view. Fields are those of the objects as they are shown, so where some are selected, all objects
    /// are looked at, and there is but one page.
    pub(super) async fn list_view(&self, options: ListOptions) -> Result<ListResult, Status> {
        let (wanted, stored) = split(&options.selection);
        let limit = if wanted.is_none() { options.limit } else { 0 };
        let mut result = self.list_stored(ListOptions { selection: stored, limit, ..options }).await?;
        result.items = self.show(result.items).await?;
        if let Some(fields) = wanted {
            result.items.retain(|item| fields.matches(|field| item.meta.field(field)));
        }
        Ok(result)
    }
}

fn none() -> Status {
    Status::internal("the converted object is missing")
}

/// The conditions on fields that depend on the version, when there are any, and the rest of a selection.
pub(super) fn split(selection: &Selection) -> (Option<FieldSelector>, Selection) {
    let (own, rest): (Vec<_>, Vec<_>) =
        selection.fields.0.iter().cloned().partition(|r| !r.field.starts_with("metadata."));
    let wanted = (!own.is_empty()).then_some(FieldSelector(own));
    (wanted, Selection { fields: FieldSelector(rest), ..selection.clone() })
}

impl View {
    async fn convert(&self, mut objects: Vec<Object>, api_version: &str) -> Result<Vec<Object>, Status> {
        for object in &mut objects {
            meta::set(object, "resourceVersion", Value::Null);
        }
        self.converter.convert(objects, api_version.to_owned()).await
    }

    async fn show_one(&self, stored: Stored) -> Result<Stored, Status> {
        self.show(vec![stored]).await?.pop().ok_or_else(none)
    }

    async fn show(&self, items: Vec<Stored>) -> Result<Vec<Stored>, Status> {
        let mut shown: Vec<Option<Stored>> = items.iter().map(|item| self.kept(item)).collect();
        let missing: Vec<usize> = (0..items.len()).filter(|at| shown[*at].is_none()).collect();
        if !missing.is_empty() {
            let objects = missing.iter().map(|at| items[*at].object()).collect::<Result<Vec<_>, _>>()?;
            let converted = self.convert(objects, &self.spec.api_version).await?;
            for (at, object) in missing.into_iter().zip(converted) {
                shown[at] = Some(self.keep(&items[at], object)?);
            }
        }
        shown.into_iter().collect::<Option<Vec<_>>>().ok_or_else(none)
    }

    fn kept(&self, stored: &Stored) -> Option<Stored> {
        let kept = self.kept.lock().get(&stored.meta.uid).cloned()?;
        (kept.meta.resource_version == stored.meta.resource_version && stored.meta.resource_version > 0).then_some(kept)
    }

    fn keep(&self, stored: &Stored, object: Object) -> Result<Stored, Status> {
        let revision = stored.meta.resource_version;
        let json = serde_json::to_vec(&object).map_err(Status::internal)?;
        let meta = super::Meta { resource_version: revision, ..parse_meta(&self.spec, &object) };
        let shown = Stored::of(with_resource_version(&json.into(), revision), meta);
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        let newer = kept.get(&shown.meta.uid).is_some_and(|k| k.meta.resource_version > revision);
        if revision > 0 && !newer {
            kept.insert(shown.meta.uid.clone(), shown.clone());
        }
        Ok(shown)
    }
}

/// The events of a view's watcher.
pub(super) struct Shown {
    store: ObjectStore,
    wanted: Option<FieldSelector>,
    /// The objects that the watcher knows of, where fields are selected.
    members: HashMap<String, Stored>,
    failed: bool,
}

impl Shown {
    /// What a watcher sees of the events of the store; `start`: where it began.
    pub async fn stream(
        store: &ObjectStore,
        wanted: Option<FieldSelector>,
        selection: &Selection,
        start: WatchStart,
        events: super::Watch,
    ) -> BoxStream<'static, WatchEvent> {
        let store = ObjectStore { view: store.view.clone(), ..store.shared() };
        let mut shown = Self { store, wanted, members: HashMap::new(), failed: false };
        if let (Some(_), WatchStart::After(revision)) = (&shown.wanted, start) {
            shown.remember(selection, revision).await;
        }
        let state = (shown, events);
        futures::stream::unfold(state, |(mut shown, mut events)| async move {
            while !shown.failed {
                let event = events.next().await?;
                if let Some(event) = shown.event(event).await {
                    return Some((event, (shown, events)));
                }
            }
            None
        })
        .boxed()
    }

    /// What the watcher has seen before it resumes; where history does not tell, nothing.
    async fn remember(&mut self, selection: &Selection, revision: u64) {
        let freshness = super::Freshness::Exact(revision);
        let options = ListOptions { selection: selection.clone(), freshness, ..ListOptions::default() };
        let Ok(list) = self.store.list_stored(options).await else { return };
        for item in self.store.show(list.items).await.unwrap_or_default() {
            if self.wants(&item) {
                self.members.insert(item.meta.uid.clone(), item);
            }
        }
    }

    fn wants(&self, item: &Stored) -> bool {
        self.wanted.as_ref().is_none_or(|fields| fields.matches(|field| item.meta.field(field)))
    }

    async fn event(&mut self, event: WatchEvent) -> Option<WatchEvent> {
        let (stored, deleted) = match &event {
            WatchEvent::Added(stored) | WatchEvent::Modified(stored) => (stored.clone(), false),
            WatchEvent::Deleted(stored) => (stored.clone(), true),
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => return Some(event),
        };
        let shown = match self.store.show_one(stored).await {
            Ok(shown) => shown.with_frames(),
            Err(status) => {
                self.failed = true;
                return Some(WatchEvent::Error(status));
            }
        };
        if self.wanted.is_none() {
            return Some(match event {
                WatchEvent::Added(_) => WatchEvent::Added(shown),
                WatchEvent::Modified(_) => WatchEvent::Modified(shown),
                _ => WatchEvent::Deleted(shown),
            });
        }
        let before = self.members.remove(&shown.meta.uid);
        let now = !deleted && self.wants(&shown);
        if now {
            self.members.insert(shown.meta.uid.clone(), shown.clone());
        }
        match (before, now) {
            (Some(_), true) => Some(WatchEvent::Modified(shown)),
            (None, true) => Some(WatchEvent::Added(shown)),
            (Some(_), false) if deleted => Some(WatchEvent::Deleted(shown)),
            // As it was when it was last seen.
            (Some(last), false) => {
                Some(WatchEvent::Deleted(super::encode::restamped(&last, shown.meta.resource_version).with_frames()))
            }
            (None, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Dispatcher, Preconditions, Update, WatchOptions};
    use futures::FutureExt;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Version 2 calls the field `b` what version 1 calls `a`.
    #[derive(Default)]
    struct Renames(AtomicUsize);

    impl Convert for Renames {
        fn convert(&self, objects: Vec<Object>, to: String) -> BoxFuture<'_, Result<Vec<Object>, Status>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let (from, into) = if to == "g/v2" { ("a", "b") } else { ("b", "a") };
            let rename = move |mut object: Object| {
                let map = object.as_object_mut().expect("object");
                if map.insert("apiVersion".into(), to.clone().into()) != Some(to.clone().into())
                    && let Some(value) = map.remove(from)
                {
                    map.insert(into.into(), value);
                }
                object
            };
            let converted = objects.into_iter().map(rename).collect();
            async move { Ok(converted) }.boxed()
        }
    }

    fn fields(name: &'static str) -> FieldsFn {
        Arc::new(move |object| vec![(name, object[name].as_str().unwrap_or("").to_owned())])
    }

    fn stores(dir: &tempfile::TempDir) -> (Arc<ObjectStore>, Arc<ObjectStore>, Arc<Renames>) {
        let kv = kv::RedbKv::open(dir.path().join("kv"), kv::Options::default()).expect("store");
        let spec = StoreSpec {
            prefix: "g/xs".into(),
            group_resource: ("g".into(), "xs".into()),
            namespaced: true,
            durability: kv::Durability::Immediate,
            fields: fields("a"),
            indexed: Vec::new(),
            api_version: "g/v1".into(),
            kind: "X".into(),
        };
        let stored = ObjectStore::new(&Dispatcher::new(kv), spec);
        let converter = Arc::new(Renames::default());
        let view = stored.view("g/v2", fields("b"), converter.clone());
        (stored, view, converter)
    }

    fn object(name: &str, b: &str) -> Object {
        json!({"apiVersion": "g/v2", "kind": "X", "metadata": {"name": name, "namespace": "ns", "uid": name}, "b": b})
    }

    fn selecting(field: &str) -> Selection {
        Selection { fields: FieldSelector::parse(field).expect("selector"), ..Selection::default() }
    }

    #[tokio::test]
    async fn objects_are_converted_on_the_way() {
        let dir = tempfile::tempdir().expect("directory");
        let (stored, view, converter) = stores(&dir);
        let created = view.create(object("one", "x"), false).await.expect("create");
        assert_eq!(created.object().expect("JSON")["b"], "x");
        let kept = stored.get("ns", "one").await.expect("get").expect("there");
        assert_eq!((kept.object().expect("JSON")["a"].clone(), kept.meta.field("a")), (json!("x"), "x"));
        let before = converter.0.load(Ordering::SeqCst);
        for _ in 0..3 {
            let shown = view.get("ns", "one").await.expect("get").expect("there");
            assert_eq!((shown.object().expect("JSON")["b"].clone(), shown.meta.field("b")), (json!("x"), "x"));
            assert_eq!(shown.meta.resource_version, kept.meta.resource_version);
        }
        assert_eq!(converter.0.load(Ordering::SeqCst), before, "a state is converted once");
        let change = |_: &Stored, mut object: Object| {
            object["b"] = "y".into();
            Ok(Update::Write(object))
        };
        let none = Preconditions::default();
        let updated = view.guaranteed_update("ns", "one", &none, change, false).await.expect("update");
        assert_eq!(updated.stored.object().expect("JSON")["b"], "y");
        view.create(object("two", "z"), false).await.expect("create");
        let options = ListOptions { selection: selecting("b=y"), ..ListOptions::default() };
        let list = view.list(options).await.expect("list");
        assert_eq!(list.items.iter().map(|i| i.meta.name.as_str()).collect::<Vec<_>>(), ["one"]);
    }

    #[tokio::test]
    async fn watchers_select_by_what_they_are_shown() {
        let dir = tempfile::tempdir().expect("directory");
        let (_stored, view, _) = stores(&dir);
        view.create(object("one", "x"), false).await.expect("create");
        let options = WatchOptions { selection: selecting("b=x"), start: WatchStart::Initial, bookmarks: false };
        let mut watch = view.watch(options).await.expect("watch");
        for value in ["x2", "x", "x"] {
            let change = |_: &Stored, mut object: Object| {
                object["b"] = value.into();
                object["n"] = (object["n"].as_i64().unwrap_or(0) + 1).into();
                Ok(Update::Write(object))
            };
            view.guaranteed_update("ns", "one", &Preconditions::default(), change, false).await.expect("update");
        }
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let (kind, stored) = match watch.next().await.expect("event") {
                WatchEvent::Added(stored) => ("ADDED", stored),
                WatchEvent::Modified(stored) => ("MODIFIED", stored),
                WatchEvent::Deleted(stored) => ("DELETED", stored),
                other => panic!("{other:?}"),
            };
            seen.push((kind, stored.object().expect("JSON")["b"].clone()));
        }
        let x = json!("x");
        assert_eq!(seen, [("ADDED", x.clone()), ("DELETED", x.clone()), ("ADDED", x.clone()), ("MODIFIED", x)]);
        view.end_watches();
        assert!(watch.next().await.is_none());
    }
}
