//! A driver comes and goes.

use super::driver::Driver;
use super::node_info;
use crate::context::Context;
use crate::plugins::rpc;
use protos::csi::NodeGetInfoRequest;
use std::path::Path;

/// Takes a driver over: asks it about the node and tells the API.
pub async fn register(ctx: &Context, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
    check_versions(name, versions)?;
    let driver = Driver::new(endpoint);
    let info = driver.node().node_get_info(rpc::timed(NodeGetInfoRequest {})).await;
    let info = info.map_err(|s| format!("error during CSI NodeGetInfo() call: {}", rpc::text(&s)))?.into_inner();
    if info.node_id.is_empty() {
        return Err(format!("error during CSI NodeGetInfo() call: driver {name} has no node id"));
    }
    // Known before the API knows: pods may come as soon as the CSINode says so.
    ctx.plugins.csi.put(name, driver);
    let told = node_info::install(ctx, name, &info).await;
    if told.is_err() {
        ctx.plugins.csi.remove(name);
    }
    told
}

/// Lets a driver go.
pub async fn deregister(ctx: &Context, name: &str) {
    ctx.plugins.csi.remove(name);
    if let Err(error) = node_info::uninstall(ctx, name).await {
        tracing::warn!(driver = name, error, "cannot take a CSI driver out of the CSINode");
    }
}

/// Only version 1 of CSI is spoken.
fn check_versions(name: &str, versions: &[String]) -> Result<(), String> {
    let wrong = |why: String| Err(super::source::log(why));
    if versions.is_empty() {
        return wrong(format!(
            "validateVersions for CSI driver {name:?} failed. Plugin returned an empty list for supported versions"
        ));
    }
    let major =
        |version: &String| version.trim_start_matches('v').split('.').next().and_then(|m| m.parse::<u32>().ok());
    if versions.iter().filter_map(major).any(|m| m == 1) {
        return Ok(());
    }
    wrong(format!(
        "validateVersions for CSI driver {name:?} failed. None of the versions specified {versions:?} are supported. err=none of the CSI versions reported by this driver are supported"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_one_is_spoken() {
        let check = |versions: &[&str], expect: bool| {
            let versions: Vec<String> = versions.iter().map(|v| (*v).to_owned()).collect();
            assert_eq!(check_versions("d", &versions).is_ok(), expect, "{versions:?}");
        };
        check(&["1.0.0"], true);
        check(&["0.3.0", "v1.9.0"], true);
        check(&["2.0.0"], false);
        check(&[], false);
    }
}
