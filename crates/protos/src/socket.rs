//! gRPC on Unix sockets: a client's channel, and a server of several services.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

/// Largest message that is read, as the kubelet and runtimes have agreed on.
pub const MAX_MESSAGE: usize = 16 << 20;

/// A channel to the socket at a path; it connects when it is first used, and again when the peer was restarted.
pub fn connect_lazily(path: &Path) -> Channel {
    endpoint().connect_with_connector_lazy(connector(path.to_owned()))
}

/// A channel to the socket at a path, connected.
pub async fn connect(path: &Path, within: Duration) -> io::Result<Channel> {
    let endpoint = endpoint();
    match tokio::time::timeout(within, endpoint.connect_with_connector(connector(path.to_owned()))).await {
        Ok(connected) => connected.map_err(io::Error::other),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {}", path.display()))),
    }
}

fn endpoint() -> Endpoint {
    // The name stands in `:authority`; Go's servers refuse a socket's path there.
    Endpoint::from_static("http://localhost")
}

fn connector(
    path: PathBuf,
) -> impl Service<http::Uri, Response = TokioIo<UnixStream>, Error = io::Error, Future: Send> + Clone + Send + 'static {
    tower::service_fn(move |_| {
        let path = path.clone();
        async move { open(&path).await.map(TokioIo::new) }
    })
}

async fn open(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() < 100 {
        return UnixStream::connect(path).await;
    }
    let (_directory, short) = shorten(path)?;
    UnixStream::connect(short).await
}

/// A short path of a socket through a handle of its directory: addresses of sockets end at 108 bytes.
fn shorten(path: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}

/// The services of one socket.
#[derive(Clone, Default)]
pub struct Services(Vec<(&'static str, BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>)>);

impl Services {
    /// Adds a service that tonic generated.
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.0.push((S::NAME, BoxCloneSyncService::new(service)));
        self
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, service)) => service.clone().oneshot(request).await,
            None => Ok(tonic::Status::unimplemented(format!("unknown service {name}")).into_http()),
        }
    }
}

/// Makes the socket at a path, replacing what an earlier process left there.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = if path.as_os_str().len() < 100 {
        UnixListener::bind(path)?
    } else {
        let (_directory, short) = shorten(path)?;
        UnixListener::bind(short)?
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves until dropped.
pub async fn serve(listener: UnixListener, services: Services) {
    let services = Arc::new(services);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, services.clone()))),
                // Out of descriptors: connections that end make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: UnixStream, services: Arc<Services>) {
    let service = hyper::service::service_fn(move |request| services.clone().answer(request));
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(1000)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a gRPC connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pluginregistration as registration;
    use registration::registration_client::RegistrationClient;
    use registration::registration_server::{Registration, RegistrationServer};

    struct Plugin;

    #[tonic::async_trait]
    impl Registration for Plugin {
        async fn get_info(
            &self,
            _: tonic::Request<registration::InfoRequest>,
        ) -> Result<tonic::Response<registration::PluginInfo>, tonic::Status> {
            Ok(tonic::Response::new(registration::PluginInfo { name: "x".into(), ..Default::default() }))
        }
    }

    #[tokio::test]
    async fn calls_reach_their_service_and_missing_ones_say_so() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a".repeat(90)).join("plugin.sock");
        let listener = bind(&path, 0o600).expect("bind");
        tokio::spawn(serve(listener, Services::default().with(RegistrationServer::new(Plugin))));
        let channel = connect(&path, Duration::from_secs(5)).await.expect("connect");
        let mut client = RegistrationClient::new(channel.clone());
        assert_eq!(client.get_info(registration::InfoRequest {}).await.expect("info").into_inner().name, "x");
        let missing = client.notify_registration_status(registration::RegistrationStatus::default()).await;
        assert_eq!(missing.expect_err("stub").code(), tonic::Code::Unimplemented);
        let mut other = crate::csi::identity_client::IdentityClient::new(channel);
        let unknown = other.probe(crate::csi::ProbeRequest {}).await;
        assert_eq!(unknown.expect_err("unknown").code(), tonic::Code::Unimplemented);
    }
}
