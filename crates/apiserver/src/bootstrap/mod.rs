//! What every cluster has before anyone asks for it: namespaces, roles, priority classes, the `kubernetes`
//! service. Each step creates what is missing and leaves what is there, so every start runs all of them.

mod kubernetes_service;
pub mod rbac;
mod system;

use crate::authn::UserInfo;
use crate::handlers::Request;
use crate::registry::create::{WriteOptions, create};
use crate::server::ApiServer;
use crate::store::Stored;
use api::{Object, Status};
use serde_json::json;
use std::sync::Arc;

/// Makes what is missing.
pub async fn run(server: &ApiServer) -> Result<(), Status> {
    for name in ["kube-system", "default", "kube-public", "kube-node-lease"] {
        ensure(server, "", "namespaces", "", json!({"metadata": {"name": name}})).await?;
    }
    rbac::run(server).await?;
    system::run(server).await?;
    if let Err(error) = kubernetes_service::run(server).await {
        tracing::warn!(%error, "the endpoints of the service default/kubernetes cannot be written yet");
        let (retry, stopping) = (kubernetes_service::retry(server.weak()), server.stopping().clone());
        tokio::spawn(async move { stopping.run_until_cancelled_owned(retry).await });
    }
    Ok(())
}

/// Creates an object unless one of its name exists; gives the one that is there then.
pub(crate) async fn ensure(
    server: &ApiServer,
    group: &str,
    resource: &str,
    namespace: &str,
    object: Object,
) -> Result<Option<Stored>, Status> {
    let row = server.registry().any_version(group, resource).ok_or_else(Status::no_such_path)?;
    let name = api::meta::name(&object).to_owned();
    if let Some(stored) = row.store.get(namespace, &name).await? {
        return Ok(Some(stored));
    }
    let request = Request::internal("create", Arc::new(UserInfo::admin()));
    let options = WriteOptions { manager: "kube-apiserver".into(), ..WriteOptions::default() };
    let mut object = object;
    row.set_type(&mut object);
    match create(server, &request, &row, namespace, object, &options).await {
        Ok(_) => Ok(None),
        Err(status) if status.reason == "AlreadyExists" => row.store.get(namespace, &name).await,
        Err(status) => Err(status),
    }
}
