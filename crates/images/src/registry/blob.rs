//! A blob into a file: hashed on the way, continued after a broken connection.

use super::client::Answer;
use super::endpoint::{Endpoint, Failures, attempts, pause};
use super::error::{Error, Result};
use crate::stream::hex;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Fetches `digest` from the first endpoint that has it; `on_bytes` is told how many there are.
pub(crate) async fn download(
    endpoints: &[&Endpoint],
    digest: &str,
    size: u64,
    path: &Path,
    kept: &Path,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let mut partial = Partial::new(digest, size, path, kept).await?;
    let mut failures = Failures::default();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let attempts = attempts(at + 1 == endpoints.len());
        match partial.fill(endpoint, attempts, on_bytes).await {
            Ok(()) => return Ok(()),
            Err(error @ Error::Write { .. }) => return Err(error),
            Err(error) => failures.push(endpoint, error),
        }
    }
    Err(failures.worst(digest))
}

/// The file and what is in it so far. What a pull that fails or is dropped has of it waits for the next one.
struct Partial<'a> {
    digest: &'a str,
    size: u64,
    path: PathBuf,
    kept: PathBuf,
    file: File,
    hash: Sha256,
    at: u64,
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.at > 0 {
            // Where that fails, the next pull begins at the start.
            let _ = std::fs::rename(&self.path, &self.kept);
        }
    }
}

impl<'a> Partial<'a> {
    /// Begins, where an earlier pull ended if there was one; `kept` is the directory where such beginnings wait.
    async fn new(digest: &'a str, size: u64, path: &Path, kept: &Path) -> Result<Partial<'a>> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let kept = kept.join(digest.trim_start_matches("sha256:"));
        // By rename: of several pulls only one goes on with it.
        let resumed = tokio::fs::rename(&kept, path).await.is_ok();
        let file = File::options().create(true).truncate(!resumed).read(true).write(true).open(path).await;
        let file = file.map_err(failed)?;
        let mut partial = Partial { digest, size, path: path.to_owned(), kept, file, hash: Sha256::new(), at: 0 };
        if resumed {
            partial.take_up().await.map_err(failed)?;
        }
        Ok(partial)
    }

    /// Hashes what is there already.
    async fn take_up(&mut self) -> std::io::Result<()> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let n = self.file.read(&mut piece).await?;
            if n == 0 {
                break;
            }
            self.hash.update(&piece[..n]);
            self.at += n as u64;
        }
        if self.at > self.size {
            (self.at, self.hash) = (0, Sha256::new());
            self.file.set_len(0).await?;
            self.file.rewind().await?;
        }
        Ok(())
    }

    /// Goes on until everything is there; attempts that brought nothing are counted.
    async fn fill(&mut self, endpoint: &Endpoint, attempts: u32, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let mut failures = 0;
        loop {
            let before = self.at;
            let error = match self.attempt(endpoint, on_bytes).await {
                Ok(()) => return self.verify().await,
                Err(error) => error,
            };
            failures = if self.at > before { 0 } else { failures + 1 };
            if !error.is_transient() || failures >= attempts {
                return Err(error);
            }
            pause(failures, &error).await;
        }
    }

    async fn attempt(&mut self, endpoint: &Endpoint, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<()> {
        if self.at == self.size {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if self.at > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.at));
            headers.extend(range.ok().map(|range| (Some(RANGE), range)));
        }
        let mut answer = endpoint.attempt(Method::GET, &format!("blobs/{}", self.digest), &headers).await?;
        if self.at > 0 && !continues(&answer, self.at) {
            self.restart().await?;
        }
        while let Some(piece) = answer.piece().await? {
            if piece.len() as u64 > self.size - self.at {
                let reason = format!("is larger than the {} bytes its manifest says", self.size);
                return Err(Error::protocol(&answer.uri, reason));
            }
            self.hash.update(&piece);
            let written = self.file.write_all(&piece).await;
            written.map_err(|source| Error::Write { path: self.path.clone(), source })?;
            self.at += piece.len() as u64;
            on_bytes(self.at);
        }
        if self.at < self.size {
            let (url, reason) = (answer.uri.to_string(), "unexpected EOF".to_owned());
            return Err(Error::Request { method: Method::GET, url, reason, transient: true });
        }
        Ok(())
    }

    async fn verify(&mut self) -> Result<()> {
        self.file.flush().await.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        let actual = format!("sha256:{}", hex(&self.hash.clone().finalize()));
        if actual == self.digest {
            // Whole: nothing to keep for another pull.
            self.at = 0;
            return Ok(());
        }
        // The next host starts afresh: who sent the wrong bytes is not known.
        self.restart().await?;
        Err(Error::Digest { expect: self.digest.to_owned(), actual })
    }

    async fn restart(&mut self) -> Result<()> {
        (self.at, self.hash) = (0, Sha256::new());
        let rewind = async {
            self.file.flush().await?;
            self.file.set_len(0).await?;
            self.file.rewind().await
        };
        rewind.await.map(drop).map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

/// Whether an answer goes on at `at` instead of starting over.
fn continues(answer: &Answer, at: u64) -> bool {
    let range = answer.response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    answer.response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_pull_goes_on() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (kept, path) = (dir.path().join("partial"), dir.path().join("blob"));
        std::fs::create_dir(&kept).expect("mkdir");
        let digest = crate::stream::digest(b"hello world");
        let begin = async |size| Partial::new(&digest, size, &path, &kept).await.expect("partial");
        let mut first = begin(11).await;
        first.file.write_all(b"hello").await.expect("write");
        first.file.flush().await.expect("flush");
        first.at = 5;
        drop(first);
        assert_eq!(std::fs::read(kept.join(&digest[7..])).expect("kept"), b"hello");
        let mut second = begin(11).await;
        assert_eq!(second.at, 5);
        second.file.write_all(b" world").await.expect("write");
        second.hash.update(b" world");
        second.at = 11;
        second.verify().await.expect("the digest of both parts");
        drop(second);
        assert_eq!(std::fs::read(&path).expect("whole"), b"hello world");
        std::fs::write(kept.join(&digest[7..]), "longer than it may be").expect("write");
        assert_eq!(begin(11).await.at, 0);
    }
}
