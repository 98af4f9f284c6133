//! Frames of SPDY/3.1 and their header blocks.

use super::dictionary::DICTIONARY;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

const VERSION: u16 = 3;
/// Largest frame that is read; peers send at most 32 KiB of data and small control frames.
const MAX_FRAME: usize = 1 << 20;
/// Largest header block, uncompressed.
const MAX_HEADERS: usize = 64 << 10;

/// Flag of the last frame of a stream's direction.
pub const FIN: u8 = 1;

/// Names and values; names are lower-case.
pub type Headers = Vec<(String, String)>;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// Accepts one.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// Ends one at once.
    RstStream { id: u32, status: u32 },
    /// Asks for the same frame back.
    Ping(u32),
    /// No more streams are taken.
    GoAway { last: u32 },
    /// More headers of a stream.
    Headers { id: u32, fin: bool, headers: Headers },
    /// Bytes of a stream.
    Data { id: u32, fin: bool, data: Bytes },
    /// SETTINGS, WINDOW_UPDATE and what else needs no answer: Kubernetes' peers do not control flow.
    Ignored,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// Reads frames; header blocks share one compression context per direction.
pub struct Decoder {
    inflate: Decompress,
}

impl Decoder {
    /// Makes a decoder for a new connection.
    pub fn new() -> Self {
        Self { inflate: Decompress::new(true) }
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
        let mut head = [0; 8];
        match from.read_exact(&mut head).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        };
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
        if length > MAX_FRAME {
            return Err(invalid("SPDY frame is too large"));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        let payload = Bytes::from(payload);
        if word >> 31 == 0 {
            return Ok(Some(Frame::Data { id: word, fin: flags & FIN != 0, data: payload }));
        }
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(invalid("unsupported SPDY version"));
        }
        self.control(word as u16, flags, payload).map(Some)
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: Bytes) -> io::Result<Frame> {
        let least = match kind {
            1 => 10,
            2 | 6 | 8 => 4,
            3 | 7 => 8,
            _ => return Ok(Frame::Ignored),
        };
        let least = if kind == 6 { 4 } else { least };
        if payload.len() < least {
            return Err(invalid("SPDY frame is too short"));
        }
        let id = payload.get_u32() & 0x7fff_ffff;
        let fin = flags & FIN != 0;
        Ok(match kind {
            1 => {
                // The associated stream and the priority are of no use here.
                payload.advance(6);
                Frame::SynStream { id, fin, headers: self.headers(&payload)? }
            }
            2 => Frame::SynReply { id, fin, headers: self.headers(&payload)? },
            3 => Frame::RstStream { id, status: payload.get_u32() },
            6 => Frame::Ping(id),
            7 => Frame::GoAway { last: id },
            _ => Frame::Headers { id, fin, headers: self.headers(&payload)? },
        })
    }

    fn headers(&mut self, block: &[u8]) -> io::Result<Headers> {
        let plain = self.decompress(block)?;
        let mut rest = plain.as_slice();
        let number = |rest: &mut &[u8]| {
            if rest.len() < 4 { Err(invalid("header block is cut off")) } else { Ok(rest.get_u32() as usize) }
        };
        let count = number(&mut rest)?;
        let mut out = Headers::new();
        for _ in 0..count {
            let mut text = || -> io::Result<String> {
                let length = number(&mut rest)?;
                let bytes = rest.get(..length).ok_or_else(|| invalid("header block is cut off"))?;
                rest = &rest[length..];
                Ok(String::from_utf8_lossy(bytes).into_owned())
            };
            let (name, value) = (text()?, text()?);
            out.push((name.to_lowercase(), value));
        }
        Ok(out)
    }

    fn decompress(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(block.len() * 4 + 256);
        let start = self.inflate.total_in();
        loop {
            let used = usize::try_from(self.inflate.total_in() - start).unwrap_or(block.len());
            let before = out.len();
            match self.inflate.decompress_vec(&block[used.min(block.len())..], &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) => {
                    let used = usize::try_from(self.inflate.total_in() - start).unwrap_or(block.len());
                    if used >= block.len() && out.len() < out.capacity() {
                        return Ok(out);
                    }
                    if out.len() == before && out.len() < out.capacity() {
                        return Err(invalid("header block does not decompress"));
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| invalid("header block has another dictionary"))?;
                }
                Err(_) => return Err(invalid("header block does not decompress")),
            }
            if out.len() > MAX_HEADERS {
                return Err(invalid("header block is too large"));
            }
            out.reserve(256);
        }
    }
}

/// Writes frames.
pub struct Encoder {
    deflate: Compress,
}

impl Encoder {
    /// Makes an encoder for a new connection.
    pub fn new() -> io::Result<Self> {
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.set_dictionary(&DICTIONARY).map_err(|_| invalid("the dictionary is refused"))?;
        Ok(Self { deflate })
    }

    /// The bytes of a frame.
    pub fn encode(&mut self, frame: &Frame) -> io::Result<Bytes> {
        let mut payload = BytesMut::new();
        let flag = |fin: &bool| if *fin { FIN } else { 0 };
        let (kind, flags) = match frame {
            Frame::Data { id, fin, data } => {
                let mut out = BytesMut::with_capacity(data.len() + 8);
                out.put_u32(*id);
                out.put_u8(flag(fin));
                out.put_uint(data.len() as u64, 3);
                out.put_slice(data);
                return Ok(out.freeze());
            }
            Frame::SynStream { id, fin, headers } => {
                payload.put_u32(*id);
                payload.put_u32(0);
                payload.put_u16(0);
                payload.put(self.headers(headers)?);
                (1, flag(fin))
            }
            Frame::SynReply { id, fin, headers } => {
                payload.put_u32(*id);
                payload.put(self.headers(headers)?);
                (2, flag(fin))
            }
            Frame::RstStream { id, status } => {
                payload.put_u32(*id);
                payload.put_u32(*status);
                (3, 0)
            }
            Frame::Ping(id) => {
                payload.put_u32(*id);
                (6, 0)
            }
            Frame::GoAway { last } => {
                payload.put_u32(*last);
                payload.put_u32(0);
                (7, 0)
            }
            Frame::Headers { id, fin, headers } => {
                payload.put_u32(*id);
                payload.put(self.headers(headers)?);
                (8, flag(fin))
            }
            Frame::Ignored => return Ok(Bytes::new()),
        };
        let mut out = BytesMut::with_capacity(payload.len() + 8);
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u8(flags);
        out.put_uint(payload.len() as u64, 3);
        out.put(payload);
        Ok(out.freeze())
    }

    fn headers(&mut self, headers: &Headers) -> io::Result<Bytes> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.deflate.total_in();
        loop {
            let used = usize::try_from(self.deflate.total_in() - start).unwrap_or(plain.len());
            self.deflate.compress_vec(&plain[used..], &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
            let used = usize::try_from(self.deflate.total_in() - start).unwrap_or(plain.len());
            // Room left over means that the flush is complete.
            if used == plain.len() && out.len() < out.capacity() {
                return Ok(out.into());
            }
            out.reserve(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let frames = [
            Frame::SynStream {
                id: 1,
                fin: false,
                headers: headers(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            },
            Frame::SynStream {
                id: 3,
                fin: true,
                headers: headers(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            },
            Frame::SynReply { id: 1, fin: false, headers: headers(&[]) },
            Frame::Data { id: 3, fin: true, data: Bytes::from_static(b"abc") },
            Frame::RstStream { id: 3, status: 5 },
            Frame::Ping(7),
            Frame::GoAway { last: 3 },
        ];
        let (mut encoder, mut decoder) = (Encoder::new().expect("encoder"), Decoder::new());
        let mut wire = Vec::new();
        for frame in &frames {
            wire.extend_from_slice(&encoder.encode(frame).expect("encode"));
        }
        let mut wire = wire.as_slice();
        for frame in frames {
            assert_eq!(decoder.read(&mut wire).await.expect("read"), Some(frame));
        }
        assert_eq!(decoder.read(&mut wire).await.expect("end"), None);
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for wire in [
            &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0][..],
            &[0x80, 2, 0, 1, 0, 0, 0, 0],
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
            &[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9],
        ] {
            let mut wire = wire;
            assert!(Decoder::new().read(&mut wire).await.is_err(), "{wire:?}");
        }
    }
}
