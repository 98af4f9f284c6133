//! Starting one container: image, configuration, create, start, postStart.

use crate::container_config::{self, Request};
use crate::context::Context;
use crate::env::field_ref::Facts;
use crate::events::{EventType, reason};
use crate::images::ImageError;
use crate::pod::PodExt;
use crate::status;
use crate::worker::Worker;
use crate::{lifecycle, termination, volumes};
use api::k8s::core::v1::{Container, Pod, Secret};
use cri::Image;
use std::sync::Arc;
use std::time::SystemTime;

/// Why a container did not start: what its waiting state shows.
#[derive(Debug, PartialEq, Eq)]
pub struct StartError {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// When to try again, where that is known.
    pub retry_at: Option<SystemTime>,
}

impl StartError {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), retry_at: None }
    }

    /// The pod is to end.
    pub fn given_up() -> Self {
        Self::new("", "")
    }
}

/// Starts the next instance of a container in the current sandbox. Ends early, as if it had failed without a
/// reason, when the pod is to end.
pub async fn start(worker: &mut Worker, container: &Container, target_id: Option<String>) -> Result<(), StartError> {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let failed = |message: String| ctx.recorder.container(&pod, container, EventType::Warning, reason::FAILED, message);
    volumes::image::set_up(worker, container).await?;
    let image = image(worker, container).await.inspect_err(|e| {
        if !e.reason.is_empty() {
            failed(format!("Error: {}", e.reason));
        }
    })?;
    let id =
        create(worker, container, &image, target_id).await.inspect_err(|e| failed(format!("Error: {}", e.message)))?;
    ctx.recorder.container(&pod, container, EventType::Normal, reason::CREATED, "Container created");
    let started = ctx.config.runtime.start_container(&id).await;
    worker.refresh(&id).await;
    if let Err(error) = started {
        let message = error.to_string();
        failed(format!("Error: {}", message.replace(&id, &container.name)));
        return Err(StartError::new("RunContainerError", message));
    }
    ctx.recorder.container(&pod, container, EventType::Normal, reason::STARTED, "Container started");
    worker.waiting.remove(&container.name);
    worker.forget_old_instances(&container.name).await;
    post_start(worker, container, &id).await
}

async fn image(worker: &Worker, container: &Container) -> Result<Image, StartError> {
    let secrets = pull_secrets(&worker.ctx, &worker.pod).await;
    let ensured =
        worker.mailbox.ending.run_until_cancelled(worker.ctx.images.ensure(&worker.pod, container, &secrets)).await;
    match ensured {
        None => Err(StartError::given_up()),
        Some(Ok(image)) => Ok(image),
        Some(Err(ImageError { reason, message, retry_at })) => {
            Err(StartError { reason: reason.into(), message, retry_at })
        }
    }
}

/// The secrets that a pod's images are pulled with; an event tells of those that are missing.
pub async fn pull_secrets(ctx: &Context, pod: &Pod) -> Vec<Arc<Secret>> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for reference in pod.spec().image_pull_secrets.iter().flatten().filter(|r| !r.name.is_empty()) {
        match ctx.secrets.get(pod.uid(), pod.namespace(), &reference.name).await {
            Ok(secret) => found.push(secret),
            Err(_) => missing.push(reference.name.clone()),
        }
    }
    if !missing.is_empty() {
        let names = missing.join(", ");
        let message = format!(
            "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
        );
        ctx.recorder.pod(pod, EventType::Warning, reason::IMAGE_PULL_SECRET, message);
    }
    found
}

async fn create(
    worker: &mut Worker,
    container: &Container,
    image: &Image,
    target_id: Option<String>,
) -> Result<String, StartError> {
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let sandbox = worker.state.sandbox().map(|s| s.id.clone());
    let sandbox = sandbox.ok_or_else(|| StartError::new("CreateContainerError", "the pod has no sandbox"))?;
    let ips = status::pod_ips(&ctx, &pod, &worker.state);
    let allocatable = ctx.allocatable();
    let facts = Facts { pod_ips: &ips, host_ips: &ctx.config.node_ips, allocatable: &allocatable };
    let request = Request {
        ctx: &ctx,
        pod: &pod,
        container,
        image,
        attempt: worker.next_attempt(&container.name),
        volumes: &worker.volumes,
        facts: &facts,
        target_id,
    };
    let config =
        container_config::build(&request).await.map_err(|why| StartError::new("CreateContainerConfigError", why))?;
    let id = ctx.config.runtime.create_container(&sandbox, config).await;
    let id = id.map_err(|e| StartError::new("CreateContainerError", e.to_string()))?;
    worker.refresh(&id).await;
    Ok(id)
}

async fn post_start(worker: &mut Worker, container: &Container, id: &str) -> Result<(), StartError> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.clone()) else { return Ok(()) };
    let (ctx, pod) = (worker.ctx.clone(), worker.pod.clone());
    let ip = status::pod_ips(&ctx, &pod, &worker.state).into_iter().next();
    let ran = worker.mailbox.ending.run_until_cancelled(lifecycle::run(&ctx, &pod, container, id, ip, &handler)).await;
    let Some(Err(message)) = ran else { return Ok(()) };
    ctx.recorder.container(&pod, container, EventType::Warning, reason::FAILED_POST_START_HOOK, "PostStartHook failed");
    let kill = termination::Kill {
        grace: termination::grace_period(&pod),
        message: "FailedPostStartHook".into(),
        order: None,
    };
    termination::kill(&ctx, &pod, Some(container), id, ip, kill).await;
    worker.refresh(id).await;
    Err(StartError::new("PostStartHookError", message))
}
