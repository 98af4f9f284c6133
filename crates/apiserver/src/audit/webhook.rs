//! Events to a webhook: lists of them, as they come.

use super::ERRORS;
use super::event::Event;
use crate::authn::kubeconfig;
use crate::server::ApiServer;
use crate::webhook::{Call, ClientConfig};
use parking_lot::Mutex;
use serde::Serialize;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Events that wait; more are dropped.
const QUEUE: usize = 10_000;
/// Events of one request at most.
const BATCH: usize = 400;
/// A list is sent when it is full, or after this time.
const GATHER: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Waits between attempts to send a list.
const PAUSES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(15), Duration::from_secs(22)];

/// A webhook.
pub struct Webhook {
    config: Arc<ClientConfig>,
    waiting: Mutex<Vec<Event>>,
    full: Notify,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventList {
    kind: &'static str,
    api_version: &'static str,
    metadata: serde_json::Value,
    items: Vec<Event>,
}

impl Webhook {
    /// The webhook of a kubeconfig.
    pub fn new(kubeconfig: &Path) -> Result<Self, String> {
        let config = kubeconfig::read(kubeconfig)?;
        Ok(Self { config: Arc::new(config), waiting: Mutex::default(), full: Notify::new() })
    }

    /// Adds an event.
    pub fn push(&self, event: &Event) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= QUEUE {
            return ERRORS.inc(&["webhook"]);
        }
        waiting.push(event.clone());
        if waiting.len() == 1 || waiting.len() >= BATCH {
            self.full.notify_one();
        }
    }

    /// Sends events until the server stops, and then those that are left.
    pub async fn run(self: Arc<Self>, server: Weak<ApiServer>, stopping: CancellationToken) {
        loop {
            if self.waiting.lock().is_empty() {
                // There is nothing to gather before the first one.
                tokio::select! {
                    () = self.full.notified() => {}
                    () = stopping.cancelled() => return,
                }
            }
            if self.waiting.lock().len() < BATCH {
                tokio::select! {
                    () = self.filled() => {}
                    () = tokio::time::sleep(GATHER) => {}
                    () = stopping.cancelled() => {}
                }
            }
            let Some(server) = server.upgrade() else { return };
            let events = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            self.send(&server, events).await;
        }
    }

    async fn filled(&self) {
        while self.waiting.lock().len() < BATCH {
            self.full.notified().await;
        }
    }

    async fn send(&self, server: &ApiServer, items: Vec<Event>) {
        let count = items.len();
        let metadata = serde_json::json!({});
        let list = EventList { kind: "EventList", api_version: "audit.k8s.io/v1", metadata, items };
        let Ok(body) = serde_json::to_vec(&list) else { return };
        let body = bytes::Bytes::from(body);
        for pause in PAUSES.into_iter().map(Some).chain([None]) {
            let call =
                Call { body: body.clone(), timeout: TIMEOUT, announce: false, user_agent: "kube-apiserver-audit" };
            match (server.webhooks().post(&self.config, call).await, pause) {
                (Ok(_), _) => return,
                (Err(error), Some(pause)) => {
                    tracing::debug!(%error, "the audit webhook failed; trying again");
                    if server.stopping().run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        break;
                    }
                }
                (Err(error), None) => {
                    tracing::error!(%error, events = count, "the audit webhook failed; events are lost")
                }
            }
        }
        ERRORS.add(&["webhook"], count as f64);
    }
}
