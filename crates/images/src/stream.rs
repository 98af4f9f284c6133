//! Readers that hash, bound and decompress.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read};

/// Hashes what passes through.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Hashing { inner, hash: Sha256::new() }
    }

    /// Reads to the end and returns the digest of everything, `sha256:…`.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex(&self.hash.finalize())))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Fails, instead of ending, when more than its bound is read or its time is up.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    deadline: std::time::Instant,
}

impl<R: Read> Bounded<R> {
    pub fn new(inner: R, bytes: u64, deadline: std::time::Instant) -> Self {
        Bounded { inner, left: bytes, deadline }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)? as u64;
        if n > self.left {
            return Err(io::Error::other("it unpacks to more bytes than a layer may have"));
        }
        if std::time::Instant::now() > self.deadline {
            return Err(io::Error::other("it takes longer to unpack than a layer may take"));
        }
        self.left -= n;
        Ok(n as usize)
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `sha256:…` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Whether these first bytes are those of a compressed file.
pub(crate) fn is_compressed(magic: &[u8]) -> bool {
    magic.starts_with(&[0x1f, 0x8b]) || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// Decompresses gzip and zstd by their first bytes; anything else passes as it is.
pub(crate) fn decompress<'a>(source: impl Read + 'a, what: &str) -> Result<Box<dyn Read + 'a>> {
    let mut source = io::BufReader::with_capacity(128 << 10, source);
    let magic = source.fill_buf().map_err(Error::io(format!("read {what}")))?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(source)))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder =
            zstd::stream::read::Decoder::with_buffer(source).map_err(Error::io(format!("decompress {what}")))?;
        Ok(Box::new(decoder))
    } else if magic.starts_with(&[0xfd, b'7', b'z', b'X', b'Z']) || magic.starts_with(b"BZh") {
        Err(Error::archive(what, "compressed with xz or bzip2, which images do not use; decompress it first"))
    } else {
        Ok(Box::new(source))
    }
}
