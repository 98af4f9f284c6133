//! A watch in progress.

use super::WatchEvent;
use super::cacher::{Cacher, Registered};
use super::dispatcher::Progress;
use super::watchers::Trigger;
use api::Status;
use futures::Stream;
use futures::stream::BoxStream;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// About how often a watcher gets a bookmark.
pub(super) const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A watch in progress: a stream of [`WatchEvent`]; it ends after an error, or when the watcher fell behind.
pub struct Watch {
    backlog: VecDeque<WatchEvent>,
    live: Option<Live>,
    /// The events of a view, in place of the others.
    shown: Option<BoxStream<'static, WatchEvent>>,
}

struct Live {
    events: super::queue::Receiver,
    cacher: Weak<Cacher>,
    trigger: Trigger,
    bookmark: Option<(Duration, Pin<Box<Sleep>>)>,
    progress: watch::Receiver<Progress>,
    sent: u64,
}

impl Watch {
    /// A watch that ends with an error.
    pub(super) fn failed(status: Status) -> Self {
        Self { backlog: [WatchEvent::Error(status)].into(), live: None, shown: None }
    }

    /// A watch of a view.
    pub(super) fn shown(events: BoxStream<'static, WatchEvent>) -> Self {
        Self { backlog: VecDeque::new(), live: None, shown: Some(events) }
    }

    pub(super) fn new(
        registered: Registered,
        cacher: Weak<Cacher>,
        progress: watch::Receiver<Progress>,
        bookmarks: Option<Duration>,
    ) -> Self {
        let Registered { backlog, events, trigger, revision } = registered;
        let bookmark = bookmarks.map(|every| (every, Box::pin(tokio::time::sleep(pause(every)))));
        Self { backlog, live: Some(Live { events, cacher, trigger, bookmark, progress, sent: revision }), shown: None }
    }
}

/// Spread out, so that watchers that began together do not wake together.
fn pause(every: Duration) -> Duration {
    every.mul_f64(rand::random_range(0.75..1.0))
}

impl Stream for Watch {
    type Item = WatchEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        if let Some(event) = self.backlog.pop_front() {
            return Poll::Ready(Some(event));
        }
        if let Some(shown) = &mut self.shown {
            return shown.as_mut().poll_next(cx);
        }
        match &mut self.live {
            Some(live) => live.poll(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Live {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        loop {
            // Read before the queue is: what is in the queue afterwards is newer than this.
            let seen = self.progress.borrow().revision;
            if let Poll::Ready(event) = self.events.poll_recv(cx) {
                self.sent = event.as_ref().and_then(WatchEvent::resource_version).unwrap_or(self.sent);
                return Poll::Ready(event);
            }
            let Some((every, timer)) = &mut self.bookmark else { return Poll::Pending };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(Instant::now() + pause(*every));
            if seen > self.sent {
                self.sent = seen;
                return Poll::Ready(Some(WatchEvent::Bookmark { resource_version: seen, initial_events_end: false }));
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.events.close();
        if let Some(cacher) = self.cacher.upgrade() {
            cacher.forget(&self.trigger);
        }
    }
}
