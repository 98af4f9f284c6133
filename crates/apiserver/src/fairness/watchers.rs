//! How many watches each change concerns.

use crate::query::Query;
use crate::request_info::RequestInfo;
use api::selector::FieldSelector;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Group, resource, namespace, name.
type Key = (String, String, String, String);

/// Counts watches in progress.
#[derive(Default)]
pub struct Watchers(Mutex<HashMap<Key, u64>>);

/// A watch in progress; it is counted until this is dropped.
pub struct Watching {
    all: Arc<Watchers>,
    key: Key,
}

impl Watchers {
    /// Counts a watch; `None` for those that few changes concern.
    pub fn begin(self: &Arc<Self>, info: &RequestInfo, query: &Query) -> Option<Watching> {
        if info.resource == "pods" {
            // The index by node: a change of a pod meets the watches of its node only.
            let selector = FieldSelector::parse(query.get("fieldSelector")).ok();
            if selector.as_ref().and_then(|s| s.exact("spec.nodeName")).is_some_and(|node| !node.is_empty()) {
                return None;
            }
        }
        let key = key(info, &info.namespace, &info.name);
        *self.0.lock().entry(key.clone()).or_default() += 1;
        Some(Watching { all: self.clone(), key })
    }

    /// How many watches a write may concern.
    pub fn of(&self, info: &RequestInfo) -> u64 {
        let counts = self.0.lock();
        let count = |namespace: &str, name: &str| counts.get(&key(info, namespace, name)).copied().unwrap_or(0);
        let mut total = count("", "");
        if !info.namespace.is_empty() {
            total += count(&info.namespace, "");
        }
        if !info.name.is_empty() {
            total += count(&info.namespace, &info.name);
        }
        total
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

fn key(info: &RequestInfo, namespace: &str, name: &str) -> Key {
    (info.group.clone(), info.resource.clone(), namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn watches_are_counted_while_they_last() {
        let watchers = Arc::new(Watchers::default());
        let read = |method: Method, uri: &str| {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let query = Query::parse(Some(query));
            (RequestInfo::new(&method, path, &query), query)
        };
        let begin = |uri: &str| {
            let (info, query) = read(Method::GET, uri);
            watchers.begin(&info, &query)
        };
        let guards = [
            begin("/api/v1/pods?watch=1"),
            begin("/api/v1/namespaces/a/pods?watch=1"),
            begin("/api/v1/namespaces/b/pods?watch=1"),
            begin("/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dp"),
        ];
        assert!(begin("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn").is_none());
        let count = |method: Method, path: &str| watchers.of(&read(method, path).0);
        assert_eq!(count(Method::POST, "/api/v1/namespaces/a/pods"), 2);
        assert_eq!(count(Method::PUT, "/api/v1/namespaces/a/pods/p"), 3);
        assert_eq!(count(Method::PUT, "/api/v1/namespaces/c/pods/p"), 1);
        assert_eq!(count(Method::POST, "/api/v1/nodes"), 0);
        drop(guards);
        assert!(watchers.0.lock().is_empty());
    }
}
