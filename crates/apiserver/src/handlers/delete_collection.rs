//! DELETE of every object that matches.

use super::{Request, answer, options};
use crate::body::Body;
use crate::registry::Resource;
use crate::registry::delete::{DeleteOptions, Deleted, delete};
use crate::server::ApiServer;
use crate::store::{Freshness, Stored};
use api::Status;
use futures::future::BoxFuture;
use http::Response;
use serde_json::json;

/// How many deletions are under way at a time; they share commits of the store.
const CONCURRENT: usize = 16;

/// Deletes the objects and answers with the list of them.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    let media = request.media()?;
    options::check_list(request, resource)?;
    let options = options::delete_options(request).await?;
    let mut list_options = options::list_options(request, resource)?;
    // A whole collection is listed a page at a time, which makes its version an exact one.
    if let (Freshness::NotOlderThan(version), "") = (list_options.freshness, request.query.get("resourceVersionMatch"))
    {
        list_options.freshness = Freshness::Exact(version);
    }
    if options.propagation.is_empty() && options.orphan_dependents.is_none() {
        resource.strategy.deletion_warning().into_iter().for_each(|text| request.warn(text));
    }
    let result = resource.store.list(list_options).await?;
    for page in result.items.chunks(CONCURRENT) {
        let mut deletions: Vec<BoxFuture<'_, Result<Deleted, Status>>> = Vec::with_capacity(CONCURRENT);
        for stored in page {
            deletions.push(one(server, request, resource, stored, &options));
        }
        for deleted in futures::future::join_all(deletions).await {
            match deleted {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
    }
    let mut items = Vec::with_capacity(result.items.len());
    for stored in &result.items {
        let mut item = Vec::new();
        resource.append_item(stored, &mut item)?;
        items.push(serde_json::from_slice::<serde_json::Value>(&item).map_err(Status::internal)?);
    }
    let list = json!({"kind": resource.list_kind(), "apiVersion": resource.api_version(),
        "metadata": super::list::metadata_of(resource, &result), "items": items});
    answer::value(request, 200, media, &list)
}

/// Boxed here, where every lifetime has a name: the compiler cannot see that a list of such futures is `Send`.
fn one<'a>(
    server: &'a ApiServer,
    request: &'a Request,
    resource: &'a Resource,
    stored: &'a Stored,
    options: &'a DeleteOptions,
) -> BoxFuture<'a, Result<Deleted, Status>> {
    Box::pin(delete(server, request, resource, &stored.meta.namespace, &stored.meta.name, options))
}
