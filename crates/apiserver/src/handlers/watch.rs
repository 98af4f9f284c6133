//! WATCH: one line of JSON, or frame of protobuf, for each change, made once and shared by all watchers.

use super::parts::Part;
use super::{Request, answer, options, table};
use crate::body::Body;
use crate::media::{Format, Media, Shape};
use crate::metrics::Bound;
use crate::metrics::storage::{WATCH_EVENT_SIZES, WATCH_EVENTS};
use crate::registry::Resource;
use crate::registry::decode::invalid_options;
use crate::server::ApiServer;
use crate::store::{Stored, Watch, WatchEvent, WatchOptions, WatchStart};
use api::{Object, Status};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::RngExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Answers with a stream of events.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Arc<Resource>) -> Result<Response<Body>, Status> {
    let media = request.media()?;
    if media.format == Format::Yaml {
        return Err(crate::media::not_acceptable_stream());
    }
    let (options, timeout) = watch_options(server, request, resource).await?;
    let watch = resource.store.watch(options).await?;
    let deadline = tokio::time::sleep(timeout);
    let stopping = server.stopping().clone();
    let end = async move {
        tokio::select! {
            () = deadline => {}
            () = stopping.cancelled_owned() => {}
        }
    };
    let encoder = Encoder::new(request, resource, media);
    let stream = frames(watch, encoder).take_until(Box::pin(end));
    let body = StreamBody::new(stream.map(|line| line.map(Frame::data)));
    let mut response = Response::new(body.boxed_unsync());
    let name = match media.format {
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        format => format.name(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(name));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

async fn watch_options(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
) -> Result<(WatchOptions, Duration), Status> {
    let query = &request.query;
    let timeout = query.integer("timeoutSeconds")?.filter(|t| *t > 0);
    query.integer("limit")?;
    let (labels, fields) = options::selectors(request)?;
    let causes = options::list_causes(request, true);
    if !causes.is_empty() {
        return Err(invalid_options("ListOptions", &causes));
    }
    let selection = options::selection_of(request, resource, labels, fields)?;
    let version = options::resource_version(query.get("resourceVersion")).map_err(|why| Status::new(500, "", why))?;
    let initial = query.optional_flag("sendInitialEvents");
    let start = match (initial, version) {
        (Some(true), version) => WatchStart::InitialEvents(version),
        (Some(false), 0) => WatchStart::After(resource.store.resource_version().await?),
        (_, 0) => WatchStart::Initial,
        (_, version) => WatchStart::After(version),
    };
    let bookmarks = query.flag("allowWatchBookmarks");
    // Without a timeout it ends after the shortest time and up to as much again, so that watchers spread.
    let shortest = server.config().limits.min_watch.as_secs().max(1);
    let seconds = timeout
        .map_or_else(|| shortest + rand::rng().random_range(0..shortest), |t| u64::try_from(t).unwrap_or(shortest));
    Ok((WatchOptions { selection, start, bookmarks }, Duration::from_secs(seconds)))
}

/// What turns events into bytes for one watcher.
struct Encoder {
    request: Request,
    resource: Arc<Resource>,
    media: Media,
    columns_sent: bool,
    counts: Option<Bound>,
    sizes: Option<Bound>,
}

impl Encoder {
    fn new(request: &Request, resource: &Arc<Resource>, media: Media) -> Self {
        let parts = (request.method.clone(), http::HeaderMap::new(), request.query.clone());
        let body = crate::body::empty();
        let request = Request::new(parts, request.info.clone(), request.user.clone(), body, None);
        let labels = [resource.group.as_str(), &resource.resource, &resource.version];
        let (counts, sizes) = (WATCH_EVENTS.bind(&labels), WATCH_EVENT_SIZES.bind(&labels));
        Self { request, resource: resource.clone(), media, columns_sent: false, counts, sizes }
    }

    fn encode(&mut self, event: &WatchEvent) -> Result<Bytes, Status> {
        let plain = self.media.shape == Shape::Object && self.media.format == Format::Json;
        let bookmark = matches!(event, WatchEvent::Bookmark { .. });
        if plain && self.resource.shows_stored() && !bookmark {
            return Ok(event.frame(&self.resource.api_version(), &self.resource.kind));
        }
        if self.media.shape == Shape::Object && self.media.format == Format::Protobuf && self.resource.shows_stored() {
            let shared = event.protobuf_frame(|name, stored| {
                let message = answer::message(&self.resource, stored)?;
                let object = schema::envelope(&self.resource.api_version(), &self.resource.kind, &message);
                Ok(schema::watch_event_protobuf(name, &object).into())
            });
            if let Some(frame) = shared {
                return frame;
            }
        }
        let (name, object) = match event {
            WatchEvent::Added(stored) => return self.change("ADDED", stored),
            WatchEvent::Modified(stored) => return self.change("MODIFIED", stored),
            WatchEvent::Deleted(stored) => return self.change("DELETED", stored),
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                ("BOOKMARK", self.shaped(self.bookmark(*resource_version, *initial_events_end))?)
            }
            WatchEvent::Error(status) => ("ERROR", status.to_object()),
        };
        self.line(name, &object)
    }

    fn change(&mut self, name: &str, stored: &Stored) -> Result<Bytes, Status> {
        if (self.media.format, self.media.shape) == (Format::Json, Shape::Partial)
            && let Some(part) = Part::of(&self.request, &self.resource, Shape::Partial, "meta.k8s.io/v1")
        {
            let mut line = b"{\"object\":".to_vec();
            part.append(&self.request, &self.resource, stored, &mut line)?;
            line.extend_from_slice(format!(",\"type\":\"{name}\"}}\n").as_bytes());
            return Ok(line.into());
        }
        let object = self.shaped(self.resource.whole_object(stored)?)?;
        self.line(name, &object)
    }

    fn line(&self, name: &str, object: &Value) -> Result<Bytes, Status> {
        match self.media.format {
            Format::Protobuf => {
                let media = Media { pretty: false, ..self.media };
                Ok(schema::watch_event_protobuf(name, &answer::encode(media, object)?).into())
            }
            // YAML was refused: it has no streams.
            Format::Json | Format::Yaml => Ok(format!("{}\n", json!({"type": name, "object": object})).into()),
        }
    }

    fn bookmark(&self, version: u64, initial_events_end: bool) -> Object {
        let mut object = crate::registry::meta::zero(self.resource.schema);
        self.resource.set_type(&mut object);
        object["metadata"] = json!({"resourceVersion": version.to_string()});
        if initial_events_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        object
    }

    fn shaped(&mut self, object: Object) -> Result<Value, Status> {
        match self.media.shape {
            Shape::Object => Ok(object),
            Shape::Partial => Ok(table::partial(&object)),
            Shape::Table => {
                let version = api::meta::resource_version(&object).to_owned();
                let meta = table::Meta::version(&version);
                let mut table = table::table(&self.request, &self.resource, &[object], meta)?;
                // The columns are sent with the first row only.
                if self.columns_sent {
                    table["columnDefinitions"] = Value::Null;
                }
                self.columns_sent = true;
                Ok(table)
            }
        }
    }
}

fn frames(watch: Watch, encoder: Encoder) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::unfold((watch, encoder), |(mut watch, mut encoder)| async move {
        let event = watch.next().await?;
        let line = encoder.encode(&event).map_err(std::io::Error::other);
        if let (Ok(line), Some(counts), Some(sizes)) = (&line, &encoder.counts, &encoder.sizes) {
            counts.inc();
            sizes.observe(line.len() as f64);
        }
        Some((line, (watch, encoder)))
    })
}
