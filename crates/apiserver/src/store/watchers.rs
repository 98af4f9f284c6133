//! The watchers of a resource, grouped by what can concern them, so that an event meets few of them.

use super::cacher::Span;
use super::event::CacheEvent;
use super::queue;
use super::{Selection, StoreSpec};
use kv::Revision;
use std::collections::HashMap;

/// Which events can concern a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Those of one key, below the resource's prefix: `namespace/name` or `name`.
    Object(String),
    /// Those with a value of the n-th indexed field, before or after.
    Field(usize, String),
    /// Those of a namespace.
    Namespace(String),
    /// All.
    Any,
}

impl Trigger {
    /// The narrowest trigger of a selection.
    pub fn of(spec: &StoreSpec, selection: &Selection, span: &Span) -> Self {
        if span.key(spec, selection).is_some() {
            return Self::Object(object_key(&selection.namespace, &selection.name));
        }
        let exact = |(at, field): (usize, &&str)| Some(Self::Field(at, selection.fields.exact(field)?.to_owned()));
        match spec.indexed.iter().enumerate().find_map(exact) {
            Some(trigger) => trigger,
            None if spec.namespaced && !selection.namespace.is_empty() => Self::Namespace(selection.namespace.clone()),
            None => Self::Any,
        }
    }
}

fn object_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

struct Watcher {
    selection: Selection,
    after: Revision,
    sender: queue::Sender,
}

impl Watcher {
    /// Sends an event that concerns it; false when it is gone or too slow.
    fn deliver(&self, event: &CacheEvent) -> bool {
        if event.revision <= self.after {
            return !self.sender.is_closed();
        }
        match event.seen_by(&self.selection) {
            Some(event) => self.sender.send(event),
            None => true,
        }
    }
}

type Group = HashMap<String, Vec<Watcher>>;

/// All watchers of a resource.
pub(super) struct Watchers {
    objects: Group,
    fields: Vec<Group>,
    namespaces: Group,
    any: Vec<Watcher>,
}

impl Watchers {
    pub fn new(indexes: usize) -> Self {
        let fields = (0..indexes).map(|_| Group::new()).collect();
        Self { objects: Group::new(), fields, namespaces: Group::new(), any: Vec::new() }
    }

    /// Adds a watcher of events after a revision.
    pub fn add(&mut self, trigger: &Trigger, selection: Selection, after: Revision) -> queue::Receiver {
        let (sender, receiver) = queue::queue();
        let watcher = Watcher { selection, after, sender };
        match self.group(trigger) {
            Some((group, key)) => group.entry(key.to_owned()).or_default().push(watcher),
            None => self.any.push(watcher),
        }
        receiver
    }

    /// Removes watchers whose receiver is gone.
    pub fn prune(&mut self, trigger: &Trigger) {
        let Some((group, key)) = self.group(trigger) else {
            self.any.retain(|w| !w.sender.is_closed());
            return;
        };
        if let Some(list) = group.get_mut(key) {
            list.retain(|w| !w.sender.is_closed());
            if list.is_empty() {
                group.remove(key);
            }
        }
    }

    fn group<'a>(&mut self, trigger: &'a Trigger) -> Option<(&mut Group, &'a str)> {
        match trigger {
            Trigger::Object(key) => Some((&mut self.objects, key)),
            Trigger::Field(at, value) => Some((self.fields.get_mut(*at)?, value)),
            Trigger::Namespace(namespace) => Some((&mut self.namespaces, namespace)),
            Trigger::Any => None,
        }
    }

    /// Sends an event to all it concerns.
    pub fn deliver(&mut self, spec: &StoreSpec, event: &CacheEvent) {
        let meta = &event.object.meta;
        self.any.retain(|w| w.deliver(event));
        deliver_to(&mut self.namespaces, &meta.namespace, event);
        if !self.objects.is_empty() {
            deliver_to(&mut self.objects, &object_key(&meta.namespace, &meta.name), event);
        }
        for (field, group) in spec.indexed.iter().zip(&mut self.fields) {
            let now = meta.field(field);
            deliver_to(group, now, event);
            let before = event.previous.as_ref().map(|p| p.meta.field(field));
            if let Some(before) = before.filter(|before| *before != now) {
                deliver_to(group, before, event);
            }
        }
    }
}

fn deliver_to(group: &mut Group, key: &str, event: &CacheEvent) {
    if let Some(list) = group.get_mut(key) {
        list.retain(|w| w.deliver(event));
        if list.is_empty() {
            group.remove(key);
        }
    }
}
