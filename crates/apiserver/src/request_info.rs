//! What a request is about, read from its method, path and query.

use crate::query::Query;
use api::selector::FieldSelector;
use http::Method;
use percent_encoding::percent_decode_str;

/// The attributes of a request that authorization and routing go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Path as sent, without the query.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the
    /// method in lower case.
    pub verb: String,
    /// Whether the request is for a resource of an API group.
    pub is_resource: bool,
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// Plural name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Name, or empty.
    pub name: String,
    /// `fieldSelector` of a request for many objects, as sent.
    pub field_selector: String,
    /// `labelSelector` of a request for many objects, as sent.
    pub label_selector: String,
    /// What follows the subresource (the path to proxy to).
    pub rest: Vec<String>,
}

impl RequestInfo {
    /// Reads a request.
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self {
            path: path.to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            ..Self::default()
        };
        // Decoded first, as servers behind this one do: what is authorized here is what they find in the path.
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let parts: Vec<String> = decoded.split('/').skip(1).map(str::to_owned).collect();
        let end = parts.iter().rposition(|p| !p.is_empty()).map_or(0, |at| at + 1);
        info.read_resource(method, &parts[..end], query);
        info
    }

    fn read_resource(&mut self, method: &Method, parts: &[String], query: &Query) {
        let at = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                self.version = parts[1].clone();
                2
            }
            Some("apis") if parts.len() >= 4 => {
                self.group = parts[1].clone();
                self.version = parts[2].clone();
                3
            }
            _ => return,
        };
        self.is_resource = true;
        let mut parts = &parts[at..];
        self.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        let old_watch = parts[0] == "watch" && parts.len() > 1;
        if old_watch {
            parts = &parts[1..];
        }
        parts = self.read_namespace(parts);
        self.resource = parts.first().cloned().unwrap_or_default();
        self.name = parts.get(1).cloned().unwrap_or_default();
        self.subresource = parts.get(2).cloned().unwrap_or_default();
        self.rest = parts.iter().skip(3).cloned().collect();
        self.read_verb(query, old_watch);
    }

    fn read_namespace<'a>(&mut self, parts: &'a [String]) -> &'a [String] {
        if parts[0] != "namespaces" {
            return parts;
        }
        if let Some(namespace) = parts.get(1) {
            self.namespace = namespace.clone();
        }
        match parts.get(2).map(String::as_str) {
            None | Some("status" | "finalize") => parts,
            Some(_) => &parts[2..],
        }
    }

    fn read_verb(&mut self, query: &Query, old_watch: bool) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.into();
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".into();
        }
        if old_watch {
            self.verb = "watch".into();
        }
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = query.get("fieldSelector").to_owned();
            self.label_selector = query.get("labelSelector").to_owned();
        }
        // A list of one name may be allowed where a list of all is not.
        if self.name.is_empty()
            && matches!(self.verb.as_str(), "list" | "watch")
            && let Ok(selector) = FieldSelector::parse(query.get("fieldSelector"))
            && let Some(name) = selector.exact("metadata.name")
        {
            self.name = name.to_owned();
        }
    }

    /// Whether the verb only reads.
    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// `pods/log`, or the resource alone.
    pub fn resource_with_subresource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let table = [
            ("GET", "/api/v1/namespaces/a/pods", "list", "", "a", "pods", "", ""),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get", "", "a", "pods", "b", "log"),
            ("GET", "/api/v1/namespaces", "list", "", "", "namespaces", "", ""),
            ("GET", "/api/v1/namespaces/a", "get", "", "a", "namespaces", "a", ""),
            ("PUT", "/api/v1/namespaces/a/finalize", "update", "", "a", "namespaces", "a", "finalize"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "apps", "a", "deployments", "", ""),
            ("GET", "/api/v1/pods?watch=true", "watch", "", "", "pods", "", ""),
            ("GET", "/api/v1/watch/pods", "watch", "", "", "pods", "", ""),
            ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn", "list", "", "", "nodes", "n", ""),
            ("GET", "/apis/apps/v1", "get", "", "", "", "", ""),
            ("POST", "/healthz", "post", "", "", "", "", ""),
            ("GET", "/api/v1/namespaces/a/pods/b%2Flog", "get", "", "a", "pods", "b", "log"),
            ("GET", "/apis/apps/v1//secrets", "get", "apps", "", "", "secrets", ""),
        ];
        for (method, uri, verb, group, namespace, resource, name, subresource) in table {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let method = Method::from_bytes(method.as_bytes()).expect("method");
            let info = RequestInfo::new(&method, path, &Query::parse(Some(query)));
            let got = [&info.verb, &info.group, &info.namespace, &info.resource, &info.name, &info.subresource];
            assert_eq!(got, [verb, group, namespace, resource, name, subresource], "{uri}");
        }
    }
}
