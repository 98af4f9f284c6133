//! The responder over real sockets.

use super::*;
use crate::zone::tests::{Fixed, zone};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData};

/// An upstream that knows `example.com` only, over UDP and TCP.
async fn upstream() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let reply = |bytes: &[u8]| {
        let request = Message::from_vec(bytes).unwrap();
        let mut response = respond(&request);
        let name = request.queries[0].name().clone();
        response.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
        response.to_vec().unwrap()
    };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = udp.recv_from(&mut buffer).await {
            // A forged answer first: another id.
            let mut forged = reply(&buffer[..n]);
            forged[0] ^= 1;
            let _ = udp.send_to(&forged, from).await;
            let _ = udp.send_to(&reply(&buffer[..n]), from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = reply(&bytes);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

async fn start(zone: Zone<Fixed>, upstreams: Vec<SocketAddr>) -> (SocketAddr, tokio_util::sync::DropGuard) {
    // A port that is free for both protocols.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let responder = Arc::new(Responder::new(zone, Forwarder::new(upstreams), Arc::new(Clients::new(vec![]))));
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let sockets = vec![Sockets::bind(address).await.unwrap()];
    tokio::spawn(serve(responder, sockets, stop));
    (address, shutdown.drop_guard())
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn udp(server: SocketAddr, bytes: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = [0; 4096];
    let received = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.ok()?.unwrap();
    Some(Message::from_vec(&buffer[..received]).unwrap())
}

async fn tcp(server: SocketAddr, bytes: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn answers_over_udp_and_tcp() {
    let (server, _guard) = start(zone(), vec![upstream().await]).await;
    for (name, expect) in [
        ("web.ns.svc.cluster.local.", vec!["10.96.0.5"]),
        ("example.com.", vec!["192.0.2.1"]),
        ("out.ns.svc.cluster.local.", vec!["example.com.", "192.0.2.1"]),
    ] {
        let asked = query(name, RecordType::A);
        assert_eq!(data(&udp(server, &asked).await.unwrap()), expect, "{name}");
        assert_eq!(data(&tcp(server, &asked).await), expect, "{name}");
    }
    let missing = udp(server, &query("none.ns.svc.cluster.local.", RecordType::A)).await.unwrap();
    assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
    assert!(missing.metadata.authoritative);
    let nodata = udp(server, &query("headless.ns.svc.cluster.local.", RecordType::AAAA)).await.unwrap();
    assert_eq!(
        (nodata.metadata.response_code, nodata.answers.len(), nodata.authorities.len()),
        (ResponseCode::NoError, 0, 1)
    );
}

#[tokio::test]
async fn addresses_take_turns() {
    let (server, _guard) = start(zone(), vec![]).await;
    let mut first = std::collections::HashSet::new();
    for _ in 0..4 {
        first.insert(
            data(&udp(server, &query("headless.ns.svc.cluster.local.", RecordType::A)).await.unwrap())[0].clone(),
        );
    }
    assert_eq!(first.len(), 2);
}

#[tokio::test]
async fn dead_upstreams_end_in_servfail_and_rubbish_in_silence() {
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (server, _guard) = start(zone(), vec![dead]).await;
    let failed = udp(server, &query("example.com.", RecordType::A)).await.unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = query("web.ns.svc.cluster.local.", RecordType::A);
    response[2] |= 0x80;
    for rubbish in [&b""[..], b"x", &[0xff; 300], &response] {
        socket.send_to(rubbish, server).await.unwrap();
    }
    let mut buffer = [0; 512];
    assert!(timeout(Duration::from_millis(300), socket.recv(&mut buffer)).await.is_err());
}

#[test]
fn large_answers_are_cut_to_fit() {
    let name = Name::from_ascii("x.ns.svc.cluster.local.").unwrap();
    let mut message = Message::response(1, OpCode::Query);
    message.add_query(Query::query(name.clone(), RecordType::A));
    for i in 0..200u8 {
        message.add_answer(Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 0, 0, i))));
    }
    let bytes = fit(message.clone(), UDP_PLAIN);
    let cut = Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() <= UDP_PLAIN && cut.metadata.truncation && cut.answers.len() > 10);
    assert_eq!(Message::from_vec(&fit(message, TCP_MAX)).unwrap().answers.len(), 200);
}
