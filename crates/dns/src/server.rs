//! Sockets, messages and limits.

use crate::Error;
use crate::clients::Clients;
use crate::forward::{Forwarder, Transport};
use crate::source::Source;
use crate::zone::{Answer, Found, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Without EDNS.
const UDP_PLAIN: usize = 512;
/// Fits into one packet everywhere, as resolvers agreed on.
const UDP_EDNS: u16 = 1232;
const UDP_TASKS: usize = 1024;
const TCP_CONNECTIONS: usize = 256;
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_MAX: usize = u16::MAX as usize;

pub(crate) struct Responder<S> {
    zone: Zone<S>,
    forwarder: Forwarder,
    clients: Arc<Clients>,
    /// Rotates the order of addresses.
    turn: AtomicUsize,
}

/// The two sockets of an address.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    pub async fn bind(address: SocketAddr) -> Result<Sockets, Error> {
        let fail = |source| Error::Listen { address, source };
        let udp = UdpSocket::bind(address).await.map_err(fail)?;
        let tcp = TcpListener::bind(address).await.map_err(fail)?;
        Ok(Sockets { udp, tcp })
    }
}

/// Serves until `shutdown`.
pub(crate) async fn serve<S: Source>(responder: Arc<Responder<S>>, sockets: Vec<Sockets>, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    for Sockets { udp, tcp } in sockets {
        tasks.spawn(serve_udp(responder.clone(), Arc::new(udp)));
        tasks.spawn(serve_tcp(responder.clone(), tcp));
    }
    // Dropping the set ends the tasks.
    shutdown.cancelled().await;
}

async fn serve_udp<S: Source>(responder: Arc<Responder<S>>, socket: Arc<UdpSocket>) {
    let slots = Arc::new(Semaphore::new(UDP_TASKS));
    let mut buffer = vec![0; 4096];
    loop {
        let (received, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error of an earlier answer; nothing to do about it.
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        // Not even refused: the source may be forged.
        if !responder.clients.admits(client.ip()) {
            continue;
        }
        let Some(request) = read(&buffer[..received]) else { continue };
        let limit =
            request.edns.as_ref().map_or(UDP_PLAIN, |edns| usize::from(edns.max_payload().clamp(512, UDP_EDNS)));
        match responder.here(&request) {
            Here::Done(response) => drop(socket.send_to(&fit(response, limit), client).await),
            later => {
                // Under a flood of foreign names the oldest get their answer, new ones ask again.
                let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
                let (responder, socket) = (responder.clone(), socket.clone());
                tokio::spawn(async move {
                    let response = responder.finish(&request, later, Transport::Udp).await;
                    let _ = socket.send_to(&fit(response, limit), client).await;
                    drop(slot);
                });
            }
        }
    }
}

async fn serve_tcp<S: Source>(responder: Arc<Responder<S>>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(TCP_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((_, client)) if !responder.clients.admits(client.ip()) => {}
            Ok((stream, _)) => {
                let responder = responder.clone();
                tokio::spawn(async move {
                    let _ = connection(&responder, stream).await;
                    drop(slot);
                });
            }
            // No file descriptors left: let some connections end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection<S: Source>(responder: &Responder<S>, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let request = timeout(TCP_IDLE, async {
            let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut bytes).await?;
            Ok::<_, std::io::Error>(bytes)
        });
        let Ok(Ok(bytes)) = request.await else { return Ok(()) };
        let Some(request) = read(&bytes) else { return Ok(()) };
        let response = match responder.here(&request) {
            Here::Done(response) => response,
            later => responder.finish(&request, later, Transport::Tcp).await,
        };
        let bytes = fit(response, TCP_MAX);
        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

/// A query worth an answer; responses and rubbish are not (two resolvers would answer each other for ever).
fn read(bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    (message.metadata.message_type == MessageType::Query).then_some(message)
}

/// What can be said without asking anybody.
enum Here {
    Done(Message),
    /// Send the query on.
    Forward,
    /// Fetch the addresses of an alias.
    Alias(Message, Query),
}

impl<S: Source> Responder<S> {
    pub fn new(zone: Zone<S>, forwarder: Forwarder, clients: Arc<Clients>) -> Responder<S> {
        Responder { zone, forwarder, clients, turn: AtomicUsize::new(0) }
    }

    fn here(&self, request: &Message) -> Here {
        let mut response = respond(request);
        if request.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
            return Here::Done(response);
        }
        let [query] = &request.queries[..] else {
            response.metadata.response_code = ResponseCode::FormErr;
            return Here::Done(response);
        };
        if query.query_class() != DNSClass::IN {
            return Here::Forward;
        }
        match self.zone.answer(query.name(), query.query_type()) {
            Answer::Forward => Here::Forward,
            Answer::NotReady => {
                response.metadata.response_code = ResponseCode::ServFail;
                Here::Done(response)
            }
            Answer::NxDomain => {
                response.metadata.authoritative = true;
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(self.zone.authority());
                Here::Done(response)
            }
            Answer::Found(found) => self.found(response, query, found),
        }
    }

    fn found(&self, mut response: Message, query: &Query, mut found: Found) -> Here {
        response.metadata.authoritative = true;
        if found.answers.is_empty() {
            response.add_authority(self.zone.authority());
            return Here::Done(response);
        }
        self.rotate(&mut found.answers);
        response.add_answers(found.answers);
        response.add_additionals(found.additionals);
        match found.alias {
            Some(alias) => Here::Alias(response, Query::query(alias, query.query_type())),
            None => Here::Done(response),
        }
    }

    /// Lets every address be first in turn; aliases stay in front of what they lead to.
    fn rotate(&self, answers: &mut [Record]) {
        let start =
            answers.iter().position(|record| record.record_type() != RecordType::CNAME).unwrap_or(answers.len());
        let addresses = &mut answers[start..];
        if addresses.len() > 1 {
            addresses.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len());
        }
    }

    async fn finish(&self, request: &Message, here: Here, transport: Transport) -> Message {
        match here {
            Here::Done(response) => response,
            Here::Forward => match self.forwarder.ask(request, transport).await {
                Some(answer) => answer,
                None => {
                    let mut response = respond(request);
                    response.metadata.response_code = ResponseCode::ServFail;
                    response
                }
            },
            Here::Alias(mut response, query) => {
                let mut asked = Message::query();
                asked.metadata.recursion_desired = true;
                asked.add_query(query);
                if let Some(answer) = self.forwarder.ask(&asked, transport).await {
                    response.add_answers(answer.answers);
                }
                response
            }
        }
    }
}

fn respond(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_EDNS);
        response.set_edns(edns);
    }
    response
}

/// Encodes a message, leaving out records until it fits; clients then know to ask over TCP.
fn fit(mut response: Message, limit: usize) -> Vec<u8> {
    loop {
        let bytes = match response.to_vec() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "cannot encode a DNS answer");
                return Vec::new();
            }
        };
        if bytes.len() <= limit {
            return bytes;
        }
        // Additional records are a courtesy: without them the answer is complete.
        if !response.additionals.is_empty() {
            response.additionals.clear();
            continue;
        }
        response.metadata.truncation = true;
        let keep = response.answers.len() / 2;
        if response.answers.is_empty() {
            response.authorities.clear();
            response.edns = None;
            return response.to_vec().unwrap_or_default();
        }
        response.answers.truncate(keep);
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
