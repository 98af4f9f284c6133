//! Fair queues: who of the waiting gets a seat next, without clock, tasks or locks.
//!
//! A request occupies seats for as long as it runs (and lingers, for the watchers of what it wrote). Work is
//! seats × seconds. Virtual time `r` advances by the work that every busy queue could have had; the queue whose
//! first request would be done earliest in virtual time goes next. A request's running time is guessed when it
//! starts and corrected when it is known. See KEP-1040.
//!
//! Times are seconds since any fixed moment, told by the caller.

use super::shuffle;
use super::spec::{Discipline, Queuing};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The guess of how long a request runs.
const EXPECTED: f64 = 0.003;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Seats while it runs.
    pub initial_seats: u64,
    /// Seats while it lingers.
    pub final_seats: u64,
    /// How long it lingers, in seconds.
    pub lingers: f64,
}

impl Work {
    /// One seat.
    pub const ONE: Self = Self { initial_seats: 1, final_seats: 0, lingers: 0.0 };

    /// Seats that are taken from its start to its end.
    pub fn max_seats(&self) -> u64 {
        self.initial_seats.max(self.final_seats)
    }

    fn total(&self) -> f64 {
        self.initial_seats as f64 * EXPECTED + self.final_seats as f64 * self.lingers
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No seat, and the level has no queues.
    ConcurrencyLimit,
    /// No seat and no place in its queue.
    QueueFull,
    /// It waited too long.
    TimeOut,
}

impl Refusal {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// What is shown of a request, and needed to go on with it.
pub struct Entry<T> {
    /// What it needs.
    pub work: Work,
    /// Queue; `None` where there are none.
    pub queue: Option<usize>,
    /// When it came; when it started, once it has.
    pub arrived: f64,
    /// See `arrived`.
    pub started: Option<f64>,
    /// What the caller keeps of it.
    pub about: Arc<T>,
    arrived_r: f64,
}

/// A queue.
#[derive(Default)]
pub struct Queue {
    /// Waiting requests in order of arrival.
    pub waiting: VecDeque<u64>,
    /// Requests of it that run.
    pub executing: usize,
    /// Seats taken by those that run or linger.
    pub seats_in_use: u64,
    /// Virtual time at which its first request starts.
    pub next_dispatch: f64,
    /// Work of the waiting.
    pub work: f64,
    /// Seats of the waiting.
    pub initial_seats: u64,
    /// As `initial_seats`, the most of both phases.
    pub max_seats: u64,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }

    fn is_idle(&self) -> bool {
        !self.is_active() && self.seats_in_use == 0
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Started.
    pub dispatched: u64,
    /// Refused, at once or after waiting.
    pub rejected: u64,
    /// Those of the refused that waited too long or whose client left.
    pub cancelled: u64,
}

/// How a request left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Left {
    /// It had not started.
    Waiting,
    /// It ran; its seats are free.
    Done,
    /// It ran; its seats are free after so many seconds, when [`QueueSet::release`] is called.
    Lingers(f64),
    /// It is not known.
    Unknown,
}

/// The queues of a priority level.
pub struct QueueSet<T> {
    discipline: Discipline,
    limit: u64,
    /// May be more than the discipline says while those at the end are in use.
    pub queues: Vec<Queue>,
    /// Every request that waits, runs or lingers.
    pub requests: HashMap<u64, Entry<T>>,
    started: Vec<u64>,
    next: u64,
    now: f64,
    r: f64,
    robin: usize,
    arrivals: usize,
    /// Requests that run.
    pub executing: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Seats taken.
    pub seats_in_use: u64,
    /// Seats the waiting want.
    pub seats_waiting: u64,
    /// What has happened so far.
    pub counts: Counts,
}

impl<T> QueueSet<T> {
    /// Builds one at a time.
    pub fn new(now: f64, discipline: Discipline, limit: u64) -> Self {
        let mut set = Self {
            discipline,
            limit,
            queues: Vec::new(),
            requests: HashMap::new(),
            started: Vec::new(),
            next: 0,
            now,
            r: 0.0,
            robin: 0,
            arrivals: 0,
            executing: 0,
            waiting: 0,
            seats_in_use: 0,
            seats_waiting: 0,
            counts: Counts::default(),
        };
        set.configure(now, discipline, limit);
        set
    }

    /// Changes discipline and seats; queues that are too many are left to drain.
    pub fn configure(&mut self, now: f64, discipline: Discipline, limit: u64) {
        self.advance(now);
        (self.discipline, self.limit) = (discipline, limit);
        let wanted = self.wanted();
        if self.queues.len() < wanted {
            self.queues.resize_with(wanted, Queue::default);
        }
        self.drop_drained();
        self.dispatch();
    }

    /// Nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    #[cfg(test)]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Seats taken and wanted.
    pub fn demand(&self) -> u64 {
        self.seats_in_use + self.seats_waiting
    }

    /// Takes the requests that have started since the last call.
    pub fn take_started(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.started)
    }

    /// A request comes; it has started when [`QueueSet::take_started`] names it.
    pub fn arrive(&mut self, now: f64, work: Work, flow: u64, about: Arc<T>) -> Result<u64, Refusal> {
        self.advance(now);
        let entry = Entry { work, queue: None, arrived: now, started: None, about, arrived_r: self.r };
        let queued = match self.discipline {
            Discipline::Queue(queuing) => self.enqueue(queuing, flow, entry),
            _ if self.has_room(work.max_seats()) => Ok(self.start_unqueued(entry)),
            _ => Err(Refusal::ConcurrencyLimit),
        };
        match queued {
            Ok(_) => self.dispatch(),
            Err(_) => self.counts.rejected += 1,
        }
        queued
    }

    /// A request is done, or gives up waiting.
    pub fn leave(&mut self, now: f64, id: u64) -> Left {
        self.advance(now);
        let Some(entry) = self.requests.get(&id) else { return Left::Unknown };
        let (work, queue, started) = (entry.work, entry.queue, entry.started);
        let Some(started) = started else {
            self.remove_waiting(id);
            self.requests.remove(&id);
            self.drop_drained();
            self.counts.rejected += 1;
            self.counts.cancelled += 1;
            self.dispatch();
            return Left::Waiting;
        };
        self.executing -= 1;
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            // The guess is made good.
            queue.next_dispatch -= work.initial_seats as f64 * (EXPECTED - (now - started));
            self.bound(at);
        }
        if work.lingers > 0.0 {
            self.dispatch();
            return Left::Lingers(work.lingers);
        }
        self.release(now, id);
        Left::Done
    }

    /// The seats of a request that lingered are free.
    pub fn release(&mut self, now: f64, id: u64) {
        self.advance(now);
        let Some(entry) = self.requests.remove(&id) else { return };
        let seats = entry.work.max_seats();
        self.seats_in_use -= seats;
        if let Some(at) = entry.queue {
            self.queues[at].seats_in_use -= seats;
            self.drop_drained();
        }
        self.dispatch();
    }

    fn wanted(&self) -> usize {
        match self.discipline {
            Discipline::Queue(queuing) => queuing.queues,
            _ => 0,
        }
    }

    fn drop_drained(&mut self) {
        let wanted = self.wanted();
        while self.queues.len() > wanted && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
        self.robin = self.robin.min(self.queues.len().saturating_sub(1));
    }

    fn advance(&mut self, now: f64) {
        let passed = (now - self.now).max(0.0);
        self.now = self.now.max(now);
        let active = self.queues.iter().filter(|q| q.is_active()).count();
        if passed > 0.0 && active > 0 {
            let wanted: u64 = self.queues.iter().map(|q| q.seats_in_use + q.max_seats).sum();
            self.r += passed * wanted.min(self.limit) as f64 / active as f64;
        }
    }

    fn has_room(&self, seats: u64) -> bool {
        match self.discipline {
            Discipline::Exempt => true,
            // What is wider than the level runs when it has the level to itself.
            _ if seats > self.limit => self.executing == 0,
            _ => self.seats_in_use + seats <= self.limit,
        }
    }

    fn start_unqueued(&mut self, mut entry: Entry<T>) -> u64 {
        entry.started = Some(self.now);
        self.executing += 1;
        self.seats_in_use += entry.work.max_seats();
        let id = self.insert(entry);
        self.count_start(id);
        id
    }

    fn insert(&mut self, entry: Entry<T>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.requests.insert(id, entry);
        id
    }

    fn count_start(&mut self, id: u64) {
        self.counts.dispatched += 1;
        self.started.push(id);
    }

    fn enqueue(&mut self, queuing: Queuing, flow: u64, mut entry: Entry<T>) -> Result<u64, Refusal> {
        let at = self.choose(queuing, flow);
        if self.seats_in_use >= self.limit && self.queues[at].waiting.len() >= queuing.queue_length_limit {
            return Err(Refusal::QueueFull);
        }
        entry.queue = Some(at);
        let work = entry.work;
        let id = self.insert(entry);
        let queue = &mut self.queues[at];
        if !queue.is_active() {
            queue.next_dispatch = self.r;
        }
        queue.waiting.push_back(id);
        queue.work += work.total();
        queue.initial_seats += work.initial_seats;
        queue.max_seats += work.max_seats();
        self.waiting += 1;
        self.seats_waiting += work.max_seats();
        self.bound(at);
        Ok(id)
    }

    /// The queue of the flow's hand with the least work. Where the search begins moves on, so that flows whose
    /// hands overlap do not all meet in the same queue.
    fn choose(&mut self, queuing: Queuing, flow: u64) -> usize {
        let mut hand = shuffle::deal(flow, queuing.queues, queuing.hand_size);
        let offset = self.arrivals % hand.len().max(1);
        self.arrivals = self.arrivals.wrapping_add(1);
        hand.rotate_left(offset);
        hand.into_iter().min_by(|a, b| self.queues[*a].work.total_cmp(&self.queues[*b].work)).unwrap_or(0)
    }

    fn remove_waiting(&mut self, id: u64) {
        let Some(entry) = self.requests.get(&id) else { return };
        let (work, Some(at)) = (entry.work, entry.queue) else { return };
        let queue = &mut self.queues[at];
        queue.waiting.retain(|other| *other != id);
        queue.work = if queue.waiting.is_empty() { 0.0 } else { queue.work - work.total() };
        queue.initial_seats -= work.initial_seats;
        queue.max_seats -= work.max_seats();
        self.waiting -= 1;
        self.seats_waiting -= work.max_seats();
        self.bound(at);
    }

    /// A queue may not save up time in which it had nothing to do.
    fn bound(&mut self, at: usize) {
        let first = self.queues[at].waiting.front().and_then(|id| self.requests.get(id));
        if let Some(arrived) = first.map(|entry| entry.arrived_r) {
            let queue = &mut self.queues[at];
            queue.next_dispatch = queue.next_dispatch.max(arrived);
        }
    }

    fn dispatch(&mut self) {
        while self.waiting > 0 && self.seats_in_use < self.limit && self.dispatch_one() {}
    }

    /// Starts the first request of the queue that would be done first; false when it finds no seats.
    fn dispatch_one(&mut self) -> bool {
        let count = self.queues.len();
        let mut best: Option<(usize, u64, f64, u64)> = None;
        for step in 1..=count {
            let at = (self.robin + step) % count;
            let queue = &self.queues[at];
            let Some((id, entry)) = queue.waiting.front().and_then(|id| Some((*id, self.requests.get(id)?))) else {
                continue;
            };
            let done = queue.next_dispatch + entry.work.total();
            if best.is_none_or(|(_, _, earliest, _)| done < earliest) {
                best = Some((at, id, done, entry.work.max_seats()));
            }
        }
        let Some((at, id, _, seats)) = best else { return false };
        if !self.has_room(seats) {
            return false;
        }
        self.robin = at;
        self.start(at, id);
        true
    }

    fn start(&mut self, at: usize, id: u64) {
        self.remove_waiting(id);
        let (now, limit) = (self.now, self.limit);
        let Some(entry) = self.requests.get_mut(&id) else { return };
        entry.started = Some(now);
        let work = &mut entry.work;
        let total = work.total();
        if work.final_seats > limit && limit > 0 {
            // Fewer seats for longer: the same work.
            work.lingers *= work.final_seats as f64 / limit as f64;
            work.final_seats = limit;
        }
        let seats = work.max_seats();
        self.executing += 1;
        self.seats_in_use += seats;
        let queue = &mut self.queues[at];
        queue.executing += 1;
        queue.seats_in_use += seats;
        queue.next_dispatch += total;
        self.bound(at);
        self.count_start(id);
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
