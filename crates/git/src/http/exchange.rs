//! One request and its answer, read bit by bit: gix writes a body, then reads headers, then the answer's body.

use super::{PATIENCE, Response, Wire, checked};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;

/// Largest request: the objects that are asked for.
const MAX_REQUEST: usize = 64 << 20;

/// A request in progress.
pub struct Exchange {
    wire: Rc<Wire>,
    state: State,
}

enum State {
    /// The body is being written.
    Asking(Option<http::request::Builder>, Vec<u8>),
    /// The answer is being read: lines of headers, what is left of the last part, and what is to come.
    Answered { headers: Bytes, chunk: Bytes, body: Incoming },
    /// Nothing more is to be had.
    Failed,
}

impl Exchange {
    /// One whose answer is there.
    pub(super) fn answered(wire: Rc<Wire>, response: Response) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { wire, state: answer(response) }))
    }

    /// One that is sent when the answer is first read.
    pub(super) fn asking(wire: Rc<Wire>, builder: http::request::Builder) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { wire, state: State::Asking(Some(builder), Vec::new()) }))
    }

    fn send(&mut self) -> io::Result<()> {
        let State::Asking(builder, body) = &mut self.state else { return Ok(()) };
        let (builder, body) = (builder.take(), std::mem::take(body));
        self.state = State::Failed;
        let builder = builder.ok_or_else(|| io::Error::other("the request was sent before"))?;
        let request = builder.body(Full::from(body)).map_err(io::Error::other)?;
        let response = self.wire.runtime.block_on(self.wire.send(request))?;
        self.state = answer(checked(response)?);
        Ok(())
    }

    /// The bytes that a part can give now; empty at its end.
    fn fill(&mut self, headers_only: bool) -> io::Result<Bytes> {
        self.send()?;
        let State::Answered { headers, chunk, body } = &mut self.state else {
            return Err(io::Error::other("the request has failed"));
        };
        if headers_only {
            return Ok(headers.clone());
        }
        while chunk.is_empty() {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the server sends nothing more");
            let frame = async { tokio::time::timeout(PATIENCE, body.frame()).await.map_err(late) };
            match self.wire.runtime.block_on(frame)? {
                None => break,
                Some(frame) => *chunk = frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
            }
            self.wire.spend(chunk.len())?;
        }
        Ok(chunk.clone())
    }

    fn consume(&mut self, amount: usize, headers_only: bool) {
        if let State::Answered { headers, chunk, .. } = &mut self.state {
            let part = if headers_only { headers } else { chunk };
            part.advance(amount.min(part.len()));
        }
    }
}

fn answer(response: Response) -> State {
    let (parts, body) = response.into_parts();
    let mut headers = Vec::new();
    for (name, value) in &parts.headers {
        headers.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    State::Answered { headers: headers.into(), chunk: Bytes::new(), body }
}

/// The headers or the body of an answer.
pub struct Part {
    exchange: Rc<RefCell<Exchange>>,
    headers: bool,
    /// What was filled last; `BufRead` lends it out.
    filled: Bytes,
}

impl Part {
    pub(super) fn headers(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self { exchange: exchange.clone(), headers: true, filled: Bytes::new() }
    }

    pub(super) fn body(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self { exchange: exchange.clone(), headers: false, filled: Bytes::new() }
    }
}

impl BufRead for Part {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.filled = self.exchange.borrow_mut().fill(self.headers)?;
        Ok(&self.filled)
    }

    fn consume(&mut self, amount: usize) {
        self.exchange.borrow_mut().consume(amount, self.headers);
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(buffer)?;
        self.consume(amount);
        Ok(amount)
    }
}

/// The body of a request, kept until the answer is asked for.
pub struct RequestBody(Rc<RefCell<Exchange>>);

impl RequestBody {
    pub(super) fn new(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self(exchange.clone())
    }
}

impl Write for RequestBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0.borrow_mut().state {
            State::Asking(_, body) if body.len() + bytes.len() <= MAX_REQUEST => {
                body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            State::Asking(..) => Err(io::Error::other("the request is too large")),
            _ => Err(io::Error::other("the request was sent before")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
