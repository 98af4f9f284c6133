//! What a watcher has not read yet, bounded by events and by bytes: one that falls behind is closed, lists again, and
//! keeps no old states in memory until it does.

use super::WatchEvent;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Events a watcher may be behind.
const EVENTS: usize = 8192;
/// Bytes of objects a watcher may be behind; a single event may be larger.
const BYTES: usize = 32 << 20;

/// The end that events are put in.
pub(super) struct Sender {
    events: mpsc::Sender<WatchEvent>,
    waiting: Arc<AtomicUsize>,
}

/// The watcher's end.
pub(super) struct Receiver {
    events: mpsc::Receiver<WatchEvent>,
    waiting: Arc<AtomicUsize>,
}

/// A queue for one watcher.
pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(EVENTS);
    let waiting = Arc::new(AtomicUsize::new(0));
    (Sender { events: sender, waiting: waiting.clone() }, Receiver { events: receiver, waiting })
}

impl Sender {
    /// Puts an event in; false when the watcher is gone or too far behind.
    pub fn send(&self, event: WatchEvent) -> bool {
        let size = event.size();
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        (before == 0 || before + size <= BYTES) && self.events.try_send(event).is_ok()
    }

    /// Whether the watcher is gone.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }
}

impl Receiver {
    /// The next event.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        let event = self.events.poll_recv(cx);
        if let Poll::Ready(Some(event)) = &event {
            self.waiting.fetch_sub(event.size(), Ordering::Relaxed);
        }
        event
    }

    /// Takes no more.
    pub fn close(&mut self) {
        self.events.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Meta, Stored};
    use bytes::Bytes;

    #[tokio::test]
    async fn a_slow_watcher_is_bounded_by_bytes() {
        let large = |size: usize| {
            let meta = Arc::new(Meta::default());
            WatchEvent::Added(Stored {
                json: Bytes::from(vec![b' '; size]),
                meta,
                frames: None,
                message: Arc::default(),
            })
        };
        let (sender, mut receiver) = queue();
        assert!(sender.send(large(BYTES + 1)), "one event may be larger than the bound");
        std::future::poll_fn(|cx| receiver.poll_recv(cx)).await.expect("event");
        assert!(sender.send(large(BYTES / 2)));
        assert!(sender.send(large(BYTES / 2)));
        std::future::poll_fn(|cx| receiver.poll_recv(cx)).await.expect("event");
        assert!(sender.send(large(BYTES / 2)), "what was read makes room");
        assert!(!sender.send(large(1)));
    }
}
