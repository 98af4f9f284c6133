//! The wiring of a server and of an agent: which component gets what, in which order they start and end.
//!
//! [`control_plane`] is the API server with its store, the controllers and the scheduler; [`node`] is the
//! runtime, the kubelet, the proxy and DNS. They meet at a `kube::Client` only: in memory beside each other,
//! by TLS ([`remote`]) from another host.

mod control_plane;
mod kubeconfig;
mod memory;
mod network;
mod node;
mod node_runtime;
mod options;
mod ready;
mod remote;

pub use kubeconfig::config as kubeconfig_of;
pub use control_plane::ENCRYPTION_KEYS;
pub use options::{ApiOptions, NodeOptions, Options, Part, Ready, default_address};
pub use remote::Remote;

use anyhow::{Context, Result};
use control_plane::ControlPlane;
use std::net::IpAddr;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a server until SIGTERM or SIGINT.
pub fn run(options: Options) -> Result<()> {
    runtime()?.block_on(async {
        let stop = until_signal()?;
        options.ready.clear();
        let plane = ControlPlane::start(&options, &stop).await?;
        let running = async {
            if options.agent {
                run_node(&options, &plane, &stop).await
            } else {
                options.ready.ready()?;
                stop.cancelled().await;
                Ok(())
            }
        };
        let result = running.await;
        options.ready.clear();
        stop.cancel();
        plane.stop().await;
        result
    })
}

/// Runs the node beside a control plane; returns when `stop` is cancelled.
async fn run_node(options: &Options, plane: &ControlPlane, stop: &CancellationToken) -> Result<()> {
    options.ready.status("starting the node");
    let surroundings = plane.surroundings(options)?;
    let node = node::Node::start(&options.node, surroundings, stop).await?;
    options.ready.status("waiting for the node to be ready");
    let until_ready = async {
        node.ready().await?;
        if options.enabled(Part::Dns) {
            options.ready.status("waiting for cluster DNS to answer");
            ready::dns_answers(plane.dns_address(), &options.node.cluster_domain).await?;
        }
        options.ready.ready()
    };
    if let Some(result) = stop.run_until_cancelled(until_ready).await {
        result?;
        stop.cancelled().await;
    }
    node.stopped().await;
    Ok(())
}

/// Runs an agent with the identity of a kubeconfig until SIGTERM or SIGINT.
pub fn run_agent(options: &NodeOptions, remote: &Remote, address: IpAddr) -> Result<()> {
    runtime()?.block_on(async {
        let stop = until_signal()?;
        let surroundings = node::Surroundings::remote(remote, options, address).await?;
        let node = node::Node::start(options, surroundings, &stop).await?;
        node.ready().await?;
        tracing::info!("ready");
        stop.cancelled().await;
        node.stopped().await;
        Ok(())
    })
}

/// Serves the runtime alone on a CRI socket until SIGTERM or SIGINT.
pub fn run_cri(options: &NodeOptions, socket: std::path::PathBuf, address: IpAddr) -> Result<()> {
    runtime()?.block_on(async {
        let stop = until_signal()?;
        let node = node_runtime::own(options, address).await?;
        let known = node_runtime::known_pod_cidrs(options);
        if !known.is_empty() {
            (node.on_pod_cidr)(known).await;
        }
        let server = node.server(options, socket).await?;
        tracing::info!("ready");
        stop.run_until_cancelled(server.run()).await;
        Ok(())
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    // Threads that block come by dozens with a busy time, and what each keeps cannot be given back before it ends.
    ::runtime::share_arenas(threads);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).thread_keep_alive(Duration::from_secs(2)).enable_all();
    builder.build().context("start the event loop")
}

/// A token that SIGTERM and SIGINT cancel.
fn until_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signal, token) = (signal(kind).context("listen for signals")?, token.clone());
        tokio::spawn(async move {
            signal.recv().await;
            token.cancel();
        });
    }
    Ok(token)
}
