//! What the tests of several crates stand on: a whole API server in memory, and a scripted one.
//!
//! [`ControlPlane`] is the real thing on a store of its own, without TCP; many run beside each other.
//! [`scripted`] is a client whose lists and watches a test writes itself, for what only reads.
//!
//! Deliberately absent: anything that skips authentication or authorization.

pub mod scripted;

use apiserver::{ApiServer, Config, UserInfo};
use kv::Kv;
use pki::{Ca, ServiceAccountKey};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A bootstrapped API server on a temporary store.
pub struct ControlPlane {
    /// The server.
    pub server: Arc<ApiServer>,
    /// Its CA.
    pub ca: Arc<Ca>,
    /// Holds the store and the keys; removed when dropped.
    pub dir: TempDir,
}

impl ControlPlane {
    /// Starts one; within a tokio runtime.
    ///
    /// # Errors
    /// What the server says, and what the system says about temporary files.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(|kv| kv, |_, _| Ok(())).await
    }

    /// Starts one on what `wrap` makes of its store, with what `configure` changes in its configuration; it may put
    /// files into the directory.
    ///
    /// # Errors
    /// As [`Self::start`], and what `configure` says.
    pub async fn with(
        wrap: impl FnOnce(Arc<dyn Kv>) -> Arc<dyn Kv>,
        configure: impl FnOnce(&mut Config, &Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let kv = wrap(kv::RedbKv::open(dir.path().join("store.redb"), kv::Options::default())?);
        let ca = Arc::new(Ca::load_or_create(dir.path())?);
        let key = Arc::new(ServiceAccountKey::load_or_create(dir.path())?);
        // TEST-NET-1 (RFC 5737): nothing is listening.
        let mut config = Config::new(kv, ca.clone(), key, ([192, 0, 2, 1].into(), 6443))?;
        configure(&mut config, dir.path())?;
        let server = ApiServer::new(config)?;
        server.bootstrap().await?;
        Ok(Self { server, ca, dir })
    }

    /// A client that may do everything.
    pub fn admin(&self) -> kube::Client {
        self.server.client(UserInfo::admin())
    }
}
