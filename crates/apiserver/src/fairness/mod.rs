//! API Priority and Fairness: who is answered first when there is more to do than seats.
//!
//! A request is classified by the first [`spec::FlowSchema`] that matches it; that names a priority level and a
//! flow. Levels have seats of their own, which idle ones lend ([`levels`]); within a level, flows wait in fair
//! queues ([`queues`]). Work is estimated beforehand ([`estimate`]). [`Fairness::admit`] gives a [`Ticket`], held
//! while the request runs, or tells that the request is to be refused. [`controller`] follows the objects.
//!
//! Invariants: queues and levels are pure, time is told to them; a ticket, or the wait for one, gives everything
//! back when it is dropped. Absent: sharing of state between servers, requests that are long-running and no watch.

mod allocation;
pub mod controller;
mod defaults;
mod demand;
mod dump;
mod estimate;
mod levels;
pub mod metrics;
mod queues;
mod retry_after;
mod shuffle;
mod spec;
mod watchers;

pub use dump::handle as handle_dump;
pub use estimate::Stats;
pub use watchers::Watching;

use crate::authn::UserInfo;
use crate::query::Query;
use crate::request_info::RequestInfo;
use estimate::Circumstances;
use jiff::Timestamp;
use levels::Levels;
use parking_lot::{Mutex, RwLock};
use queues::{Left, Refusal, Work};
use retry_after::RetryAfter;
use spec::{Discipline, FlowSchema};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use watchers::Watchers;

/// The limits of a server and what is known of its requests.
pub struct Fairness {
    levels: Mutex<Levels<Asked>>,
    schemas: RwLock<Arc<Vec<Arc<FlowSchema>>>>,
    watchers: Arc<Watchers>,
    retry_after: RetryAfter,
    epoch: Instant,
    /// A level whose object is gone has become idle.
    drained: Notify,
}

/// A request that waits or runs.
struct Asked {
    schema: Arc<FlowSchema>,
    distinguisher: String,
    user: Arc<UserInfo>,
    info: RequestInfo,
    at: Timestamp,
    start: Mutex<Option<oneshot::Sender<()>>>,
}

/// The UIDs that answers name: a client learns how it was classified, not by which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Of the flow schema.
    pub schema_uid: String,
    /// Of the priority level.
    pub level_uid: String,
}

/// What becomes of a request.
pub enum Admission {
    /// It runs for as long as the ticket is held.
    Run(Class, Ticket),
    /// It is refused; the client should wait so many seconds.
    Refuse(Class, i64),
}

/// A place among the waiting or running.
pub struct Ticket {
    fairness: Arc<Fairness>,
    asked: Arc<Asked>,
    level: String,
    id: u64,
    work: Work,
    waits_since: Instant,
    runs_since: Option<Instant>,
}

impl Fairness {
    /// Fairness with the mandatory levels, for so many requests at once.
    pub fn new(seats: u64) -> Arc<Self> {
        let fairness = Self {
            levels: Mutex::new(Levels::new(0.0, seats)),
            schemas: RwLock::default(),
            watchers: Arc::default(),
            retry_after: RetryAfter::default(),
            epoch: Instant::now(),
            drained: Notify::new(),
        };
        fairness.set_schemas(Vec::new());
        Arc::new(fairness)
    }

    fn now(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64()
    }

    /// Counts a watch for as long as the answer is kept.
    pub fn watches(&self, info: &RequestInfo, query: &Query) -> Option<Watching> {
        self.watchers.begin(info, query)
    }

    /// Waits for a seat, at most so long. `stats` tells what is stored of the request's resource.
    pub async fn admit(
        self: &Arc<Self>,
        (user, info, query): (&Arc<UserInfo>, &RequestInfo, &Query),
        stats: impl FnOnce() -> Option<Stats>,
        patience: Duration,
    ) -> Admission {
        let schema = self.classify(user, info);
        let level = schema.spec.priority_level_configuration.name.clone();
        let distinguisher = schema.distinguisher(user, info).to_owned();
        let mut circumstances = Circumstances::default();
        let mut class = Class { schema_uid: schema.metadata.uid.clone(), level_uid: String::new() };
        if let Some(level) = self.levels.lock().get(&level) {
            class.level_uid.clone_from(&level.spec.metadata.uid);
            circumstances.max_seats = level.max_seats();
        }
        circumstances.stats = stats();
        circumstances.watchers = if info.is_read() { 0 } else { self.watchers.of(info) };
        let work = estimate::estimate(info, query, &circumstances);
        let flow = [schema.metadata.name.as_str(), level.as_str()];
        metrics::ESTIMATED.observe(&flow, work.max_seats() as f64);
        if !info.is_read() {
            metrics::WATCHERS.observe(&flow, circumstances.watchers as f64);
        }
        let (start, started) = oneshot::channel();
        let asked = Asked {
            distinguisher,
            user: user.clone(),
            info: info.clone(),
            at: Timestamp::now(),
            start: Mutex::new(Some(start)),
            schema: schema.clone(),
        };
        match self.take_place(&level, work, Arc::new(asked)) {
            Ok(ticket) => match ticket.wait(started, patience).await {
                Some(ticket) => Admission::Run(class, ticket),
                None => self.refuse(class, &schema, &level, Refusal::TimeOut),
            },
            Err(refusal) => self.refuse(class, &schema, &level, refusal),
        }
    }

    fn refuse(&self, class: Class, schema: &FlowSchema, level: &str, refusal: Refusal) -> Admission {
        metrics::REJECTED.inc(&[&schema.metadata.name, level, refusal.name()]);
        Admission::Refuse(class, self.retry_after.refuse(level, Timestamp::now().as_second()))
    }

    /// The schema of a request: the last one, `catch-all`, is for everything.
    fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Arc<FlowSchema> {
        let schemas = self.schemas.read().clone();
        let found = schemas.iter().find(|schema| schema.matches(user, info)).or(schemas.last());
        found.cloned().unwrap_or_default()
    }

    fn take_place(self: &Arc<Self>, level: &str, work: Work, asked: Arc<Asked>) -> Result<Ticket, Refusal> {
        let flow = shuffle::flow_hash(&asked.schema.metadata.name, &asked.distinguisher);
        let (id, started) = {
            let mut levels = self.levels.lock();
            let id = levels.arrive(self.now(), level, work, flow, asked.clone())?;
            (id, levels.take_started(level))
        };
        metrics::waits(&[&asked.schema.metadata.name, level], &work, 1.0);
        wake(started);
        Ok(Ticket {
            fairness: self.clone(),
            asked,
            level: level.to_owned(),
            id,
            work,
            waits_since: Instant::now(),
            runs_since: None,
        })
    }

    /// Takes over the objects there are.
    fn configure(&self, levels: Vec<spec::PriorityLevel>, schemas: Vec<FlowSchema>) {
        let started = {
            let mut state = self.levels.lock();
            state.configure(self.now(), levels);
            state.take_all_started()
        };
        wake(started);
        self.set_schemas(schemas);
    }

    /// Schemas in order of precedence; those without a level are left out, absent mandatory ones are imagined.
    fn set_schemas(&self, mut schemas: Vec<FlowSchema>) {
        {
            let levels = self.levels.lock();
            schemas.retain(|s| levels.has(&s.spec.priority_level_configuration.name));
        }
        for mandatory in defaults::mandatory_schemas() {
            if schemas.iter().all(|s| s.metadata.name != mandatory.metadata.name) {
                schemas.push(mandatory);
            }
        }
        schemas.sort_by(|a, b| {
            let order = |s: &FlowSchema| (s.spec.matching_precedence, s.metadata.name.clone());
            order(a).cmp(&order(b))
        });
        *self.schemas.write() = Arc::new(schemas.into_iter().map(Arc::new).collect());
    }

    /// Moves seats to where they are wanted.
    fn adjust(&self) {
        let started = {
            let mut levels = self.levels.lock();
            levels.adjust(self.now());
            levels.take_all_started()
        };
        wake(started);
    }

    fn leave(self: &Arc<Self>, level: &str, id: u64) -> Left {
        let (left, drained, started) = {
            let mut levels = self.levels.lock();
            let (left, drained) = levels.leave(self.now(), level, id);
            (left, drained, levels.take_started(level))
        };
        wake(started);
        if drained {
            self.drained.notify_one();
        }
        if let Left::Lingers(seconds) = left {
            self.release_later(level, id, Duration::from_secs_f64(seconds));
        }
        left
    }

    fn release_later(self: &Arc<Self>, level: &str, id: u64, after: Duration) {
        let (fairness, level) = (self.clone(), level.to_owned());
        let release = move || {
            let started = {
                let mut levels = fairness.levels.lock();
                levels.release(fairness.now(), &level, id);
                levels.take_started(&level)
            };
            wake(started);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(after).await;
                release();
            })),
            // The process ends: nobody waits any more.
            Err(_) => release(),
        }
    }
}

fn wake(started: Vec<Arc<Asked>>) {
    for asked in started {
        if let Some(start) = asked.start.lock().take() {
            // A client that has left in the meantime gives its seats back when its ticket is dropped.
            let _ = start.send(());
        }
    }
}

impl Ticket {
    /// Waits until the request has started; `None` when that took too long.
    async fn wait(mut self, started: oneshot::Receiver<()>, patience: Duration) -> Option<Self> {
        if !matches!(tokio::time::timeout(patience, started).await, Ok(Ok(()))) {
            self.observe_wait("false");
            return None;
        }
        metrics::waits(&self.flow(), &self.work, -1.0);
        if !self.exempt() {
            self.observe_wait("true");
        }
        metrics::runs(&self.flow(), &self.work, 1.0);
        metrics::DISPATCHED.inc(&self.flow());
        self.runs_since = Some(Instant::now());
        Some(self)
    }

    fn exempt(&self) -> bool {
        self.fairness.levels.lock().get(&self.level).is_some_and(|l| l.discipline == Discipline::Exempt)
    }

    fn flow(&self) -> [&str; 2] {
        [&self.asked.schema.metadata.name, &self.level]
    }

    fn observe_wait(&self, executed: &str) {
        let [schema, level] = self.flow();
        metrics::WAIT.observe(&[schema, level, executed], self.waits_since.elapsed().as_secs_f64());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fairness.leave(&self.level, self.id);
        match self.runs_since {
            Some(since) => {
                metrics::runs(&self.flow(), &self.work, -1.0);
                let kind = if self.asked.info.verb == "watch" { "watch" } else { "regular" };
                let [schema, level] = self.flow();
                metrics::EXECUTION.observe(&[schema, level, kind], since.elapsed().as_secs_f64());
            }
            None => metrics::waits(&self.flow(), &self.work, -1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use serde_json::{Value, json};

    fn level(name: &str, queues: usize) -> spec::PriorityLevel {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": "level"}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Queue",
                "queuing": {"queues": queues, "handSize": 1, "queueLengthLimit": 1}}}}}))
        .expect("level")
    }

    fn schema(name: &str, level: &str, user: &str) -> FlowSchema {
        let rule: Value =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
        serde_json::from_value(json!({"metadata": {"name": name, "uid": "schema"}, "spec": {
            "matchingPrecedence": 100, "priorityLevelConfiguration": {"name": level},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": [rule]}]}}))
        .expect("schema")
    }

    async fn ask(fairness: &Arc<Fairness>, user: &str, patience: u64) -> Admission {
        let info = RequestInfo::new(&Method::GET, "/api/v1/nodes/n", &Query::default());
        let user = Arc::new(UserInfo::new(user, &[]));
        let asked = (&user, &info, &Query::default());
        fairness.admit(asked, || None, Duration::from_millis(patience)).await
    }

    #[tokio::test]
    async fn requests_wait_run_and_are_refused() {
        let fairness = Fairness::new(2);
        fairness.configure(vec![level("one", 1)], vec![schema("s", "one", "ada"), schema("lost", "none", "bob")]);
        let Admission::Run(class, first) = ask(&fairness, "ada", 10).await else { panic!("a seat is free") };
        assert_eq!(class, Class { schema_uid: "schema".into(), level_uid: "level".into() });
        let Admission::Refuse(_, 1) = ask(&fairness, "ada", 10).await else { panic!("no seat: waited in vain") };
        let waiting = tokio::spawn({
            let fairness = fairness.clone();
            async move { ask(&fairness, "ada", 10_000).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Admission::Refuse(..) = ask(&fairness, "ada", 10_000).await else { panic!("the queue is full") };
        let Admission::Run(class, _) = ask(&fairness, "bob", 10).await else { panic!("catch-all has a seat") };
        assert_eq!(class.schema_uid, "", "catch-all is imagined");
        drop(first);
        assert!(matches!(waiting.await, Ok(Admission::Run(..))));
        let levels = fairness.levels.lock();
        assert!(levels.iter().all(|(_, level)| level.queues.is_idle()), "everything was given back");
    }

    #[tokio::test]
    async fn who_leaves_while_waiting_gives_the_place_back() {
        let fairness = Fairness::new(1);
        fairness.configure(vec![level("one", 1)], vec![schema("s", "one", "ada")]);
        let Admission::Run(_, _first) = ask(&fairness, "ada", 10).await else { panic!("a seat is free") };
        let waiting = tokio::spawn({
            let fairness = fairness.clone();
            async move { ask(&fairness, "ada", 10_000).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting.abort();
        let _ = waiting.await;
        assert_eq!(fairness.levels.lock().get("one").map(|l| l.queues.waiting), Some(0));
    }
}
