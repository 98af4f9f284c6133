//! get, list and watch.

use super::cacher::{Begin, Registered, Snapshot, Span};
use super::continuation::{Continuation, continue_expired, list_expired, too_large, watch_expired, without_retry};
use super::view::{Shown, split};
use super::watch::BOOKMARK_EVERY;
use super::{
    Freshness, ListOptions, ListResult, ObjectStore, Selection, Stored, Watch, WatchEvent, WatchOptions, WatchStart,
};
use api::Status;
use kv::{Range, RangeReply};
use std::sync::Arc;

impl ObjectStore {
    /// Reads the newest state of an object.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Stored>, Status> {
        self.get_at(namespace, name, Freshness::Latest).await
    }

    /// Reads an object that is as fresh as asked; an exact revision means one at least as new.
    pub async fn get_at(&self, namespace: &str, name: &str, freshness: Freshness) -> Result<Option<Stored>, Status> {
        self.wait(freshness).await?;
        match self.cacher.get(&self.key(namespace, name)) {
            Some(stored) => Ok(Some(self.show_one(stored).await?)),
            None => Ok(None),
        }
    }

    /// Lists objects, page by page when there is a limit.
    pub async fn list(&self, options: ListOptions) -> Result<ListResult, Status> {
        match self.view {
            None => self.list_stored(options).await,
            Some(_) => self.list_view(options).await,
        }
    }

    /// Lists objects as they are stored.
    pub(super) async fn list_stored(&self, options: ListOptions) -> Result<ListResult, Status> {
        let span = Span::of(self.cacher.prefix(), &self.codec.spec, &options.selection);
        if options.continue_token.is_empty() {
            return match options.freshness {
                Freshness::Exact(revision) => self.list_exact(&options, span, revision, false).await,
                freshness => {
                    self.wait(freshness).await?;
                    // As upstream: where any state will do, the cache answers in one piece.
                    let limit = if freshness == Freshness::Any { 0 } else { options.limit };
                    Ok(page(&options, &span, self.snapshot(&options, &span, limit).await?))
                }
            };
        }
        let token = Continuation::decode(&options.continue_token)?;
        let span = span.from(&token.start);
        match token.revision {
            Some(revision) => self.list_exact(&options, span, revision, true).await,
            None => {
                self.wait(Freshness::Latest).await?;
                Ok(page(&options, &span, self.snapshot(&options, &span, options.limit).await?))
            }
        }
    }

    /// Watches objects. A resource version that is too old or too large is told by the stream's first event, as
    /// upstream does.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, Status> {
        if self.view.is_none() {
            return Ok(self.begin_watch(options).await.unwrap_or_else(Watch::failed));
        }
        let (wanted, selection) = split(&options.selection);
        let start = options.start;
        let stored = WatchOptions { selection: selection.clone(), ..options };
        let events = self.begin_watch(stored).await.unwrap_or_else(Watch::failed);
        Ok(Watch::shown(Shown::stream(self, wanted, &selection, start, events).await))
    }

    async fn begin_watch(&self, options: WatchOptions) -> Result<Watch, Status> {
        self.wait(if matches!(options.start, WatchStart::After(_)) { Freshness::Any } else { Freshness::Latest })
            .await?;
        if let WatchStart::InitialEvents(revision) = options.start {
            self.wait(Freshness::NotOlderThan(revision)).await?;
        }
        let mut registered = self.register(&options).await?;
        if options.bookmarks && matches!(options.start, WatchStart::InitialEvents(_)) {
            let resource_version = registered.revision;
            registered.backlog.push_back(WatchEvent::Bookmark { resource_version, initial_events_end: true });
        }
        let progress = self.dispatcher.progress();
        Ok(Watch::new(registered, Arc::downgrade(&self.cacher), progress, options.bookmarks.then_some(BOOKMARK_EVERY)))
    }

    pub(super) async fn register(&self, options: &WatchOptions) -> Result<Registered, Status> {
        loop {
            let (begin, requested) = match options.start {
                WatchStart::After(revision) => (Begin::After(revision), revision),
                WatchStart::Initial | WatchStart::InitialEvents(_) => (Begin::Present, 0),
            };
            if let Some(registered) = self.cacher.watch(&options.selection, begin) {
                return registered.map_err(|oldest| watch_expired(requested, oldest));
            }
            self.cacher.ready(&self.dispatcher).await?;
        }
    }

    /// How many objects there are.
    pub async fn count(&self) -> Result<usize, Status> {
        self.wait(Freshness::Latest).await?;
        Ok(self.cacher.count())
    }

    /// The newest revision of the whole store.
    pub async fn resource_version(&self) -> Result<u64, Status> {
        self.dispatcher.kv().revision().await.map_err(Status::internal)
    }

    /// Waits until the cacher is as fresh as asked.
    pub(super) async fn wait(&self, freshness: Freshness) -> Result<(), Status> {
        self.cacher.ready(&self.dispatcher).await?;
        match freshness {
            Freshness::Any => Ok(()),
            Freshness::Latest => self.dispatcher.wait_current().await,
            Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => self.dispatcher.wait_for(revision).await,
        }
    }

    async fn snapshot(&self, options: &ListOptions, span: &Span, limit: usize) -> Result<Snapshot, Status> {
        loop {
            if let Some(snapshot) = self.cacher.snapshot(&options.selection, span, limit) {
                return Ok(snapshot);
            }
            self.cacher.ready(&self.dispatcher).await?;
        }
    }

    /// A page at a revision: from memory when nothing has changed since, else from history.
    async fn list_exact(
        &self,
        options: &ListOptions,
        span: Span,
        revision: u64,
        paging: bool,
    ) -> Result<ListResult, Status> {
        self.cacher.ready(&self.dispatcher).await?;
        let waited = self.dispatcher.wait_for(revision).await;
        waited.map_err(without_retry)?;
        if paging && !self.dispatcher.continues(revision) {
            return Err(continue_expired(span.start.strip_prefix(&span.scope).unwrap_or_default()));
        }
        let cached = self.snapshot(options, &span, options.limit).await?;
        if self.cacher.shows(revision) {
            return Ok(page(options, &span, Snapshot { revision, ..cached }));
        }
        // One more than the page tells whether there is more; with selectors nobody knows how many that takes.
        let limit = if everything(&options.selection) && options.limit > 0 { options.limit + 1 } else { 0 };
        let range = Range { start: span.start.clone(), end: span.end.clone(), limit, revision };
        match self.dispatcher.kv().range(range).await {
            Ok(reply) => Ok(page(options, &span, self.select(options, reply)?)),
            Err(kv::Error::Compacted { .. }) if paging => {
                Err(continue_expired(span.start.strip_prefix(&span.scope).unwrap_or_default()))
            }
            Err(kv::Error::Compacted { .. }) => Err(list_expired()),
            Err(kv::Error::Future { requested, current }) => Err(without_retry(too_large(requested, current))),
            Err(error) => Err(Status::internal(error)),
        }
    }

    fn select(&self, options: &ListOptions, reply: RangeReply) -> Result<Snapshot, Status> {
        let (mut items, mut more) = (Vec::new(), false);
        for kv in &reply.kvs {
            if options.limit > 0 && items.len() == options.limit {
                more = true;
                break;
            }
            let stored = self.codec.decode(kv)?;
            if options.selection.matches(&stored.meta) {
                items.push((kv.key.clone(), stored));
            }
        }
        Ok(Snapshot { items, in_range: reply.count, more, revision: reply.revision })
    }
}

/// Makes the answer of a list: where there is more, a token and, without selectors, how much.
fn page(options: &ListOptions, span: &Span, snapshot: Snapshot) -> ListResult {
    let Snapshot { items, in_range, more, revision } = snapshot;
    let last = items.last().filter(|_| more).and_then(|(key, _)| key.strip_prefix(span.scope.as_str()));
    let token = last.map(|key| Continuation { start: format!("{key}\0"), revision: Some(revision) }.encode());
    let remaining = (more && everything(&options.selection)).then(|| in_range.saturating_sub(items.len()));
    ListResult {
        items: items.into_iter().map(|(_, stored)| stored).collect(),
        resource_version: revision,
        continue_token: token.unwrap_or_default(),
        remaining,
    }
}

/// Whether a selection holds all objects of its span.
fn everything(selection: &Selection) -> bool {
    selection.labels.0.is_empty() && selection.fields.0.is_empty() && selection.name.is_empty()
}
