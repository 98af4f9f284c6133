//! Port-forward: which sandbox is meant, then the session itself ([`streaming`]).

use super::{Body, Call, Server, text};
use crate::format;
use cri::StreamRequest;
use http::{Response, StatusCode};
use std::sync::Arc;
use streaming::port_forward::{self, Forwarder};

/// `/portForward/<namespace>/<pod>[/<uid>]`
pub async fn open(server: Arc<Server>, call: Call) -> Response<Body> {
    let (Some(namespace), Some(name)) = (call.segments.get(1), call.segments.get(2)) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let Some(pod) = server.pods.find(namespace, name) else { return text(StatusCode::NOT_FOUND, "pod does not exist") };
    let Some((sandbox, _)) = super::running(&server, namespace, name).await else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("pod not found ({})", format::quote(&format::pod(&pod))),
        );
    };
    let ports = call.query.iter().filter(|(n, _)| n == "port" || n == "ports").filter_map(|(_, v)| v.parse().ok());
    let wanted = StreamRequest::PortForward { sandbox_id: sandbox.clone(), ports: ports.collect() };
    match super::exec::remote(&server, wanted).await {
        Ok(None) => {
            let runtime = server.ctx.config.runtime.clone();
            port_forward::serve(call.request, &call.query, Forwarder { runtime, sandbox })
        }
        Ok(Some(url)) => streaming::proxy::forward(call.request, &url).await,
        Err(answer) => answer,
    }
}
