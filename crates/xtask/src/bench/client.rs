//! A client of a cluster: requests one after another on one connection, streams on connections of their own.

use super::connection::{Administrator, Connection, JSON};
use anyhow::{Result, anyhow};
use serde_json::Value;
use std::path::Path;
use std::sync::Mutex;

/// A client of a cluster, as its administrator.
pub struct Client {
    administrator: Administrator,
    requests: Mutex<Connection>,
}

impl Client {
    /// Connects to the cluster of a kubeconfig.
    pub fn of(kubeconfig: &Path) -> Result<Self> {
        let administrator = Administrator::of(kubeconfig)?;
        let requests = Mutex::new(administrator.connect()?);
        Ok(Self { administrator, requests })
    }

    /// Sends a request; gives the body as JSON.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut connection = self.requests.lock().map_err(|_| anyhow!("a request panicked"))?;
        Ok(serde_json::from_slice(&connection.call(method, path, JSON, body.as_bytes())?)?)
    }

    /// Begins a watch; gives its events as they come.
    pub fn watch(&self, path: &str) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        let mut connection = self.administrator.connect()?;
        connection.watch(path)?;
        Ok(connection.lines())
    }

    /// Upgrades to WebSocket and reads until `text` has come, or the end; whether it has.
    pub fn upgrade(&self, path: &str, protocol: &str, text: &str) -> Result<bool> {
        self.administrator.connect()?.upgrade(path, protocol, text)
    }
}
