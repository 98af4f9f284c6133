//! The streaming server: HTTP on the loopback, one use of each URL.
//!
//! A URL names a session by a random token that is good once and for a minute, which is all the access control that
//! CRI has here: whoever could ask the socket for it may use it.

use cri::{RuntimeService, StreamRequest};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streaming::port_forward::{self, Forwarder};
use streaming::remote_command::{self, Wants};
use tokio::net::TcpListener;
use tonic::Status;

const GOOD_FOR: Duration = Duration::from_secs(60);
/// Sessions that wait for their client.
const MOST: usize = 1000;

type Waiting = Mutex<HashMap<String, (StreamRequest, Instant)>>;

/// Sessions that were asked for.
#[derive(Clone)]
pub struct Sessions {
    base: String,
    waiting: Arc<Waiting>,
}

/// Where their clients come.
pub struct Listener {
    listener: TcpListener,
    runtime: Arc<dyn RuntimeService>,
    waiting: Arc<Waiting>,
}

impl Sessions {
    /// Listens on a free port.
    pub async fn bind(runtime: Arc<dyn RuntimeService>) -> std::io::Result<(Self, Listener)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let waiting = Arc::new(Waiting::default());
        Ok((Self { base, waiting: waiting.clone() }, Listener { listener, runtime, waiting }))
    }

    /// Makes a session and returns its URL.
    pub fn open(&self, request: StreamRequest) -> Result<String, Status> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (_, since)| since.elapsed() < GOOD_FOR);
        if waiting.len() >= MOST {
            return Err(Status::resource_exhausted("maximum number of in-flight requests exceeded"));
        }
        let verb = match request {
            StreamRequest::Exec(_) => "exec",
            StreamRequest::Attach(_) => "attach",
            StreamRequest::PortForward { .. } => "portforward",
        };
        let token = format!("{:032x}", rand::random::<u128>());
        let url = format!("{}/{verb}/{token}", self.base);
        waiting.insert(token, (request, Instant::now()));
        Ok(url)
    }
}

impl Listener {
    /// Serves until dropped.
    pub async fn serve(self) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let _ = stream.set_nodelay(true);
                        let (runtime, waiting) = (self.runtime.clone(), self.waiting.clone());
                        let service = hyper::service::service_fn(move |request| {
                            let answer = answer(request, &runtime, &waiting);
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        let mut builder = hyper::server::conn::http1::Builder::new();
                        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
                        connections.spawn(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
                    }
                    // Out of descriptors: connections that end make room.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

fn answer(
    request: Request<Incoming>,
    runtime: &Arc<dyn RuntimeService>,
    waiting: &Waiting,
) -> Response<streaming::Body> {
    let token = request.uri().path().rsplit('/').next().unwrap_or_default();
    let session = waiting.lock().remove(token).filter(|(_, since)| since.elapsed() < GOOD_FOR);
    let Some((session, _)) = session else {
        let mut response = Response::new(Full::new("404 page not found\n".into()).boxed());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let runtime = runtime.clone();
    match session {
        StreamRequest::Exec(exec) => {
            remote_command::serve(request, wants(&exec), async move { runtime.exec(exec).await })
        }
        StreamRequest::Attach(attach) => {
            remote_command::serve_attach(request, wants(&attach), async move { runtime.attach(attach).await })
        }
        StreamRequest::PortForward { sandbox_id, ports } => {
            let asked = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned();
            let named = ports.iter().map(|port| ("port".to_owned(), port.to_string()));
            let query: Vec<(String, String)> = asked.chain(named).collect();
            port_forward::serve(request, &query, Forwarder { runtime, sandbox: sandbox_id })
        }
    }
}

fn wants(request: &cri::ExecRequest) -> Wants {
    Wants { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty }
}
