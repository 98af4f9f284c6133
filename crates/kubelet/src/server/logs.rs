//! `/containerLogs/<namespace>/<pod>/<container>`

use super::{Body, Call, Server, streamed, text};
use crate::format::quote;
use crate::logs::notify;
use crate::logs::reader::{LogReader, Options};
use crate::pod::PodExt;
use api::k8s::core::v1::{ContainerStatus, Pod};
use bytes::Bytes;
use cri::ContainerState;
use http::{Response, StatusCode};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};

/// Parts of an answer that may wait for a slow client.
const QUEUE: usize = 8;

/// Sends a container's log, and what is added to it with `follow`.
pub async fn get(server: Arc<Server>, call: Call) -> Response<Body> {
    let [_, namespace, name, container] = call.segments.as_slice() else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let Some(pod) = server.pods.find(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod {} does not exist", quote(name)));
    };
    if pod.container(container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {} not found in pod {}", quote(container), quote(name)));
    }
    let linked = server.ctx.config.runtime.features().linked_logs;
    let options = match options(&call) {
        Ok(options) => Options { linked, ..options },
        Err(why) => return text(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let id = match container_id(&server, &pod, container, call.flag("previous")).await {
        Ok(id) => id,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    // Before the state is read, so that its end is not missed.
    let events = server.ctx.config.runtime.subscribe();
    let status = match server.ctx.config.runtime.container_status(&id).await {
        Ok(status) => status,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let path = PathBuf::from(&status.log_path);
    let reader = match LogReader::open(&path, options) {
        Ok(reader) => reader,
        Err(error) => {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("failed to try resolving symlinks in path {}: {error}", quote(&status.log_path)),
            );
        }
    };
    let (sender, parts) = mpsc::channel(QUEUE);
    let follow = (call.flag("follow") && status.state == ContainerState::Running).then_some(events);
    tokio::spawn(copy(server, id, path, reader, sender, follow));
    streamed(parts)
}

async fn copy(
    server: Arc<Server>,
    id: String,
    path: PathBuf,
    mut reader: LogReader,
    sender: mpsc::Sender<Bytes>,
    follow: Option<broadcast::Receiver<cri::ContainerEvent>>,
) {
    let watch = follow.as_ref().and_then(|_| notify::watch(path.parent()?).ok());
    let (mut follow, mut ended) = (follow, false);
    loop {
        loop {
            match reader.read() {
                Ok(part) if part.is_empty() => break,
                Ok(part) => {
                    if sender.send(part.into()).await.is_err() {
                        return;
                    }
                }
                Err(error) => return tracing::warn!(path = %path.display(), %error, "cannot read log"),
            }
        }
        let (Some(events), Some(watch)) = (&mut follow, &watch) else { return };
        if ended || reader.is_done() {
            return;
        }
        tokio::select! {
            () = watch.changed() => {}
            event = events.recv() => {
                let about = !matches!(&event, Ok(event) if event.id != id);
                if about {
                    let status = server.ctx.config.runtime.container_status(&id).await;
                    // Read once more: what was written before the end is there now.
                    ended = !status.is_ok_and(|s| s.state == ContainerState::Running);
                }
            }
            () = sender.closed() => return,
        }
    }
}

fn options(call: &Call) -> Result<Options, String> {
    const INVALID: &str = "{\"message\": \"Invalid request.\"}";
    let number =
        |name: &str| call.parameter(name).map(|v| v.parse::<u64>().map_err(|_| INVALID.to_owned())).transpose();
    let since_seconds = number("sinceSeconds")?;
    let since = match (call.parameter("sinceTime"), since_seconds) {
        (Some(time), _) => Some(time.parse().map_err(|_| INVALID.to_owned())?),
        (_, Some(seconds)) => {
            let now = jiff::Timestamp::now();
            Some(
                now - jiff::SignedDuration::from_secs(
                    i64::try_from(seconds).unwrap_or(i64::MAX / 2).min(now.as_second()),
                ),
            )
        }
        _ => None,
    };
    let stream = match call.parameter("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        Some(_) => return Err(INVALID.into()),
    };
    let tail = match call.parameter("tail") {
        Some("all") => None,
        Some(_) => number("tail")?,
        None => number("tailLines")?,
    };
    Ok(Options { tail, since, timestamps: call.flag("timestamps"), limit: number("limitBytes")?, stream, linked: false })
}

/// The instance whose log is meant; the error is upstream's text.
async fn container_id(server: &Server, pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let state =
        crate::state::PodState::list(&*server.ctx.config.runtime, pod.uid()).await.map_err(|e| e.to_string())?;
    let history = state.history(container);
    let (name, pod_name) = (quote(container), quote(pod.name()));
    if previous {
        let ended = history.get(1).copied().or_else(|| history.first().copied().filter(|_| waits(pod, container)));
        return ended
            .map(|s| s.id.clone())
            .ok_or_else(|| format!("previous terminated container {name} in pod {pod_name} not found"));
    }
    match history.iter().find(|s| s.state != ContainerState::Created) {
        Some(found) => Ok(found.id.clone()),
        None => Err(waiting_text(pod, container, &name, &pod_name)),
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    crate::pod::container_statuses(pod.status.as_ref()?).find(|s| s.name == container)
}

/// Whether the container waits to be started again: its last instance is then the previous one.
fn waits(pod: &Pod, container: &str) -> bool {
    status(pod, container).and_then(|s| s.state.as_ref()).is_some_and(|s| s.waiting.is_some())
}

fn waiting_text(pod: &Pod, container: &str, name: &str, pod_name: &str) -> String {
    let Some(status) = status(pod, container) else {
        return format!("container {name} in pod {pod_name} is not available");
    };
    let waiting =
        status.state.as_ref().and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref()).unwrap_or_default();
    let why = match waiting {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        "" => "ContainerCreating",
        other => other,
    };
    format!("container {name} in pod {pod_name} is waiting to start: {why}")
}
