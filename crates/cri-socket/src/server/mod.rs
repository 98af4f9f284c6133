//! Our runtime on a CRI socket.
//!
//! [`runtime`] and [`images`] answer the calls, one line each where `cri` has the same; [`streams`] is the HTTP server
//! whose URLs Exec, Attach and PortForward answer with.

mod image_mounts;
mod images;
mod runtime;
mod stats;
mod streams;

use crate::convert::to_status;
use cri::{ImageService, RuntimeService};
use futures::future::BoxFuture;
use protos::cri::image_service_server::ImageServiceServer;
use protos::cri::runtime_service_server::RuntimeServiceServer;
use protos::socket::{self, MAX_MESSAGE, Services};
use std::path::PathBuf;
use std::sync::Arc;
use streams::Sessions;
use tonic::{Response, Status};

/// Told the node's pod CIDRs by UpdateRuntimeConfig.
pub type PodCidrHandler = Arc<dyn Fn(Vec<String>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a server is made with.
pub struct Options {
    /// Where it listens; only root may connect.
    pub socket: PathBuf,
    /// The runtime.
    pub runtime: Arc<dyn RuntimeService>,
    /// Its images.
    pub images: Arc<dyn ImageService>,
    /// Receiver of pod CIDRs.
    pub on_pod_cidr: Option<PodCidrHandler>,
    /// A path on the file system of writable layers, as stats name it.
    pub layers: PathBuf,
    /// Where images that containers mount are shown.
    pub image_mounts: PathBuf,
    /// Name under which images are held.
    pub owner: String,
    /// Cgroup below which pods run that name none.
    pub cgroup: String,
}

/// A server that is bound and not yet served.
pub struct Server {
    listener: tokio::net::UnixListener,
    streams: streams::Listener,
    services: Services,
}

impl Server {
    /// Binds the socket and the streaming server (on a free port of 127.0.0.1).
    pub async fn bind(options: Options) -> std::io::Result<Self> {
        let listener = socket::bind(&options.socket, 0o600)?;
        let (sessions, streams) = Sessions::bind(options.runtime.clone()).await?;
        let options = Arc::new(options);
        let runtime = runtime::Runtime { options: options.clone(), sessions };
        let images = images::Images { options };
        let services = Services::default()
            .with(RuntimeServiceServer::new(runtime).max_decoding_message_size(MAX_MESSAGE))
            .with(ImageServiceServer::new(images).max_decoding_message_size(MAX_MESSAGE));
        Ok(Self { listener, streams, services })
    }

    /// Serves until dropped.
    pub async fn run(self) {
        tokio::join!(socket::serve(self.listener, self.services), self.streams.serve());
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// An answer of ours as gRPC's.
fn answer<T, M>(result: cri::Result<T>, make: impl FnOnce(T) -> M) -> Answer<M> {
    result.map(|value| Response::new(make(value))).map_err(to_status)
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is not set"))
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}
