//! `device-plugins/kubelet.sock`: where plugins register.

use super::plugin;
use crate::context::Context;
use protos::deviceplugin::registration_server::{Registration, RegistrationServer};
use protos::deviceplugin::{Empty, RegisterRequest};
use protos::socket::{self, MAX_MESSAGE, Services};
use std::path::Path;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

const VERSION: &str = "v1beta1";
const SOCKET: &str = "kubelet.sock";

struct Server {
    ctx: Arc<Context>,
}

#[async_trait]
impl Registration for Server {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let refused = |why: String| Err(Status::unknown(why));
        if request.version != VERSION {
            return refused(format!(
                "requested API version {:?} is not supported by kubelet. Supported version is {VERSION:?}",
                request.version
            ));
        }
        if !is_extended(&request.resource_name) {
            return refused(format!("the ResourceName {:?} is invalid", request.resource_name));
        }
        // The endpoint is a name in the directory, never a way out of it.
        if request.endpoint.is_empty() || request.endpoint.contains('/') {
            return refused(format!("the endpoint {:?} is invalid", request.endpoint));
        }
        let endpoint = self.ctx.plugins.devices.dir.join(&request.endpoint);
        tokio::spawn(plugin::run(self.ctx.clone(), request.resource_name, endpoint, request.options));
        Ok(Response::new(Empty {}))
    }
}

/// Whether a name can be that of an extended resource: qualified, not of Kubernetes itself, fit for a quota.
pub fn is_extended(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    let label = |text: &str| {
        !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    let dns = domain.len() <= 253 && domain.split('.').all(|part| label(part) && !part.contains('_'));
    // `requests.` before it must still be a name.
    dns && label(rest)
        && domain.len() + "requests.".len() <= 253
        && !domain.contains("kubernetes.io")
        && !domain.starts_with("requests.")
}

/// A device plugin that was found in the plugin registry instead.
pub fn register_plugin(ctx: &Arc<Context>, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
    if !versions.iter().any(|v| v == VERSION) {
        return Err(format!("manager only supports {VERSION:?} but plugin supports {versions:?}"));
    }
    if !is_extended(name) {
        return Err(format!("invalid name of device plugin socket: {name}"));
    }
    tokio::spawn(plugin::run(ctx.clone(), name.to_owned(), endpoint.to_owned(), None));
    Ok(())
}

/// Serves registrations as long as the kubelet runs. A new socket tells plugins that the kubelet was restarted.
pub async fn run(ctx: Arc<Context>) {
    let dir = ctx.plugins.devices.dir.clone();
    let service = RegistrationServer::new(Server { ctx }).max_decoding_message_size(MAX_MESSAGE);
    let bound = clear(&dir).and_then(|()| socket::bind(&dir.join(SOCKET), 0o600));
    match bound {
        Ok(listener) => socket::serve(listener, Services::default().with(service)).await,
        Err(error) => {
            tracing::error!(%error, dir = %dir.display(), "cannot serve device plugin registration");
            std::future::pending().await
        }
    }
}

/// Removes the sockets of plugins of an earlier life, which is how they learn that they have to register anew.
fn clear(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    std::fs::create_dir_all(dir)?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_names_are_extended_ones() {
        for good in ["example.com/gpu", "vendor.io/a-b_c"] {
            assert!(is_extended(good), "{good}");
        }
        for bad in
            ["cpu", "kubernetes.io/x", "a.kubernetes.io/x", "requests.example.com/x", "example.com/", "exa mple/x"]
        {
            assert!(!is_extended(bad), "{bad}");
        }
    }
}
