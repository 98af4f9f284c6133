//! A SPDY connection: streams the client opens, each with bytes both ways.

use super::frame::{Decoder, Encoder, Frame, Headers};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Frames that may wait for a slow connection, and parts for a slow stream.
const QUEUE: usize = 16;
/// Largest part of data per frame, as peers send it.
const MAX_DATA: usize = 16 * 1024;
/// Streams open at the same time.
const MAX_STREAMS: usize = 1024;

/// A stream that the client opened.
pub struct Stream {
    /// Its headers.
    pub headers: Headers,
    /// Bytes from the client; ends with its half.
    pub receiver: mpsc::Receiver<Bytes>,
    /// The way back.
    pub sender: Sender,
}

impl Stream {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The sending half of a stream.
#[derive(Clone)]
pub struct Sender {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

impl Sender {
    /// Sends bytes; false when the connection is gone.
    pub async fn send(&self, bytes: Bytes) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(MAX_DATA));
            if self.frames.send(Frame::Data { id: self.id, fin: false, data }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends this half.
    pub async fn close(&self) {
        let _ = self.frames.send(Frame::Data { id: self.id, fin: true, data: Bytes::new() }).await;
    }

    /// Ends both halves at once.
    pub async fn reset(&self) {
        const CANCEL: u32 = 5;
        let _ = self.frames.send(Frame::RstStream { id: self.id, status: CANCEL }).await;
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}

/// Runs a connection: streams come out of the returned channel; it ends with the connection. The connection is
/// closed when nobody holds the channel or a stream's sender any more.
pub fn serve<T>(io: T) -> io::Result<mpsc::Receiver<Stream>>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let encoder = Encoder::new()?;
    let (reader, writer) = tokio::io::split(io);
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let (opened, streams) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // Either end ends both: a reader without a writer has nobody to answer.
        tokio::select! {
            _ = read(reader, frames.downgrade(), opened, frames) => {}
            _ = write(writer, encoder, outgoing) => {}
        }
    });
    Ok(streams)
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut encoder: Encoder,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        to.write_all(&encoder.encode(&frame)?).await?;
        if frames.is_empty() {
            to.flush().await?;
        }
    }
    let goodbye = encoder.encode(&Frame::GoAway { last: 0 })?;
    to.write_all(&goodbye).await?;
    to.shutdown().await
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    frames: mpsc::WeakSender<Frame>,
    opened: mpsc::Sender<Stream>,
    first: mpsc::Sender<Frame>,
) -> io::Result<()> {
    let (mut decoder, mut first) = (Decoder::new(), Some(first));
    let mut inputs: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    while let Some(frame) = decoder.read(&mut from).await? {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let Some(frames) = frames.upgrade() else { break };
                inputs.retain(|_, input| !input.is_closed());
                if inputs.len() >= MAX_STREAMS {
                    const REFUSED: u32 = 3;
                    let _ = frames.send(Frame::RstStream { id, status: REFUSED }).await;
                    continue;
                }
                let (input, receiver) = mpsc::channel(QUEUE);
                if !fin {
                    inputs.insert(id, input);
                }
                let _ = frames.send(Frame::SynReply { id, fin: false, headers: Headers::new() }).await;
                let stream = Stream { headers, receiver, sender: Sender { id, frames } };
                if opened.send(stream).await.is_err() {
                    // No more streams are wanted; those that are open go on.
                    first = None;
                }
            }
            Frame::Data { id, fin, data } => {
                if let Some(input) = inputs.get(&id)
                    && !data.is_empty()
                    && input.send(data).await.is_err()
                {
                    inputs.remove(&id);
                }
                if fin {
                    inputs.remove(&id);
                }
            }
            Frame::RstStream { id, .. } => drop(inputs.remove(&id)),
            Frame::Ping(id) => {
                if let Some(frames) = frames.upgrade() {
                    let _ = frames.send(Frame::Ping(id)).await;
                }
            }
            Frame::GoAway { .. } => first = None,
            Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Ignored => {}
        }
        // Whoever takes the streams decides how long the connection lives.
        if opened.is_closed() {
            first = None;
        }
    }
    drop(first);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_open_carry_and_close() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut streams = serve(server).expect("serve");
        let (mut from, mut to) = tokio::io::split(client);
        let (mut encoder, mut decoder) = (Encoder::new().expect("encoder"), Decoder::new());
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        for frame in [
            Frame::SynStream { id: 1, fin: false, headers },
            Frame::Data { id: 1, fin: true, data: Bytes::from_static(b"in") },
            Frame::Ping(9),
        ] {
            to.write_all(&encoder.encode(&frame).expect("encode")).await.expect("write");
        }
        let mut stream = streams.recv().await.expect("stream");
        assert_eq!(stream.header("streamtype"), Some("data"));
        assert_eq!(stream.receiver.recv().await.as_deref(), Some(&b"in"[..]));
        assert_eq!(stream.receiver.recv().await, None);
        assert!(stream.sender.send(Bytes::from_static(b"out")).await);
        stream.sender.close().await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(decoder.read(&mut from).await.expect("read").expect("frame"));
        }
        assert!(seen.contains(&Frame::Ping(9)));
        assert!(seen.contains(&Frame::Data { id: 1, fin: false, data: Bytes::from_static(b"out") }));
        assert!(seen.contains(&Frame::Data { id: 1, fin: true, data: Bytes::new() }));
    }
}
