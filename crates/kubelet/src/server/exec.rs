//! Exec and attach: which container is meant, then the session itself ([`streaming`]).

use super::{Body, Call, Server, text};
use crate::format;
use crate::pod::PodExt;
use cri::StreamRequest;
use http::{Response, StatusCode};
use std::sync::Arc;
use streaming::remote_command::{self, Wants};

/// `/exec/<namespace>/<pod>[/<uid>]/<container>?command=…`
pub async fn exec(server: Arc<Server>, call: Call) -> Response<Body> {
    let wants = Wants::of(&call.query);
    let container_id = match find(&server, &call, wants).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let cmd: Vec<String> = call.query.iter().filter(|(n, _)| n == "command").map(|(_, v)| v.clone()).collect();
    if cmd.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
    }
    let request = wants.request(container_id, cmd);
    match remote(&server, StreamRequest::Exec(request.clone())).await {
        Ok(None) => {
            let runtime = server.ctx.config.runtime.clone();
            remote_command::serve(call.request, wants, async move { runtime.exec(request).await })
        }
        Ok(Some(url)) => streaming::proxy::forward(call.request, &url).await,
        Err(answer) => answer,
    }
}

/// `/attach/<namespace>/<pod>[/<uid>]/<container>`
pub async fn attach(server: Arc<Server>, call: Call) -> Response<Body> {
    let wants = Wants::of(&call.query);
    let container_id = match find(&server, &call, wants).await {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let request = wants.request(container_id, Vec::new());
    match remote(&server, StreamRequest::Attach(request.clone())).await {
        Ok(None) => {
            let runtime = server.ctx.config.runtime.clone();
            remote_command::serve_attach(call.request, wants, async move { runtime.attach(request).await })
        }
        Ok(Some(url)) => streaming::proxy::forward(call.request, &url).await,
        Err(answer) => answer,
    }
}

/// Where the session is to be had, when the runtime serves its streams itself.
pub async fn remote(server: &Server, request: StreamRequest) -> Result<Option<String>, Response<Body>> {
    let url = server.ctx.config.runtime.stream_url(request).await;
    url.map_err(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn find(server: &Server, call: &Call, wants: Wants) -> Result<String, Response<Body>> {
    let (Some(namespace), Some(name), Some(container)) =
        (call.segments.get(1), call.segments.get(2), call.segments.last())
    else {
        return Err(text(StatusCode::NOT_FOUND, "404 page not found\n"));
    };
    if wants.is_empty() {
        return Err(text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"));
    }
    let Some(pod) = server.pods.find(namespace, name) else {
        return Err(text(StatusCode::NOT_FOUND, "pod does not exist"));
    };
    let running = super::running(server, namespace, name).await.map(|(_, containers)| containers);
    match running.and_then(|mut containers| containers.remove(container)) {
        Some(id) => Ok(id),
        None => Err(text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("container not found ({})", format::quote(container))
                + if pod.is_terminal() { ", pod is terminated" } else { "" },
        )),
    }
}
