//! Binds by posting to the pod's `binding` subresource.

use crate::Handle;
use crate::framework::{Bind, Plugin, Rejection};
use api::k8s::core::v1::Pod;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;
use serde_json::json;

pub(crate) struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

impl Bind for DefaultBinder {
    fn bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>> {
        async move {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let body = json!({"apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
                "target": {"kind": "Node", "name": node}});
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
            let request = http::Request::post(path)
                .header("content-type", "application/json")
                .body(body.to_string().into_bytes());
            let request = request.map_err(|e| Rejection::error(e.to_string()))?;
            handle
                .client
                .request_text(request)
                .await
                .map(drop)
                .map_err(|e| Rejection::error(format!("binding rejected: {e}")))
        }
        .boxed()
    }
}
