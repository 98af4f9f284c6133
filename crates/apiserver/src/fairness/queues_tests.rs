//! Tests of the queues: seats, order, fairness between flows, change of the configuration.

use super::*;
use std::collections::BTreeMap;

fn queued(queues: usize, hand_size: usize, length: usize) -> Discipline {
    Discipline::Queue(Queuing { queues, hand_size, queue_length_limit: length })
}

fn wide(seats: u64) -> Work {
    Work { initial_seats: seats, ..Work::ONE }
}

struct Sim {
    set: QueueSet<&'static str>,
    now: f64,
}

impl Sim {
    fn new(discipline: Discipline, limit: u64) -> Self {
        Self { set: QueueSet::new(0.0, discipline, limit), now: 0.0 }
    }

    fn arrive(&mut self, who: &'static str, work: Work) -> Result<u64, Refusal> {
        self.set.arrive(self.now, work, shuffle::flow_hash("s", who), Arc::new(who))
    }

    fn started(&mut self) -> Vec<u64> {
        self.set.take_started()
    }

    /// Two flows keep their queues full; returns how often each was served.
    fn serve(&mut self, flows: [(&'static str, usize, f64); 2], rounds: usize) -> BTreeMap<&'static str, usize> {
        let (mut served, mut running) = (BTreeMap::new(), Vec::new());
        for (who, waiting, _) in flows {
            for _ in 0..waiting {
                let _ = self.arrive(who, Work::ONE);
            }
        }
        for _ in 0..rounds {
            for id in self.started() {
                let who = *self.set.requests[&id].about;
                let time = flows.iter().find(|(f, _, _)| *f == who).map_or(0.0, |(_, _, t)| *t);
                running.push((self.now + time, id, who));
            }
            running.sort_by(|a, b| b.0.total_cmp(&a.0));
            let Some((end, id, who)) = running.pop() else { break };
            self.now = self.now.max(end);
            self.set.leave(self.now, id);
            *served.entry(who).or_default() += 1;
            let _ = self.arrive(who, Work::ONE);
        }
        served
    }
}

#[test]
fn seats_are_limited_and_given_in_order() {
    let mut sim = Sim::new(queued(1, 1, 2), 2);
    let ids: Vec<_> = (0..4).map(|_| sim.arrive("a", Work::ONE).expect("queued")).collect();
    assert_eq!(sim.started(), &ids[..2]);
    assert_eq!(sim.arrive("a", Work::ONE), Err(Refusal::QueueFull));
    assert_eq!(sim.set.leave(1.0, ids[0]), Left::Done);
    assert_eq!(sim.started(), &ids[2..3]);
    assert_eq!(sim.set.leave(1.0, ids[3]), Left::Waiting, "it gave up");
    assert_eq!(sim.set.leave(1.0, ids[3]), Left::Unknown);
    let counts = sim.set.counts;
    assert_eq!((counts.dispatched, counts.rejected, counts.cancelled), (3, 2, 1));
    for id in [ids[1], ids[2]] {
        sim.set.leave(2.0, id);
    }
    assert!(sim.set.is_idle() && sim.set.demand() == 0 && sim.set.requests.is_empty());
}

#[test]
fn a_level_without_queues_refuses() {
    let mut sim = Sim::new(Discipline::Reject, 1);
    let id = sim.arrive("a", Work::ONE).expect("a seat");
    assert_eq!(sim.started(), [id]);
    assert_eq!(sim.arrive("a", Work::ONE), Err(Refusal::ConcurrencyLimit));
    sim.set.leave(0.1, id);
    assert!(sim.arrive("b", Work::ONE).is_ok());
    let mut exempt = Sim::new(Discipline::Exempt, 0);
    assert!((0..1000).all(|_| exempt.arrive("a", Work::ONE).is_ok()));
    assert_eq!(exempt.set.executing, 1000);
}

#[test]
fn wide_requests_wait_for_their_seats() {
    let mut sim = Sim::new(queued(4, 1, 10), 4);
    let a = sim.arrive("a", wide(3)).expect("seats");
    let b = sim.arrive("b", wide(2)).expect("queued");
    assert_eq!(sim.started(), [a]);
    sim.set.leave(0.5, a);
    assert_eq!(sim.started(), [b]);
    let c = sim.arrive("c", wide(9)).expect("queued");
    assert!(sim.started().is_empty());
    sim.set.leave(0.6, b);
    assert_eq!(sim.started(), [c], "wider than the level, alone");
}

#[test]
fn lingering_requests_keep_their_seats() {
    let mut sim = Sim::new(queued(1, 1, 10), 2);
    let work = Work { initial_seats: 1, final_seats: 8, lingers: 0.005 };
    let a = sim.arrive("a", work).expect("seats");
    assert_eq!(sim.started(), [a], "it has the level for itself");
    assert_eq!(sim.set.leave(0.1, a), Left::Lingers(0.02), "fewer seats for longer");
    sim.set.release(0.12, a);
    let mut sim = Sim::new(queued(1, 1, 10), 8);
    let a = sim.arrive("a", work).expect("seats");
    let b = sim.arrive("a", Work::ONE).expect("queued");
    assert_eq!(sim.started(), [a]);
    assert_eq!(sim.set.leave(0.1, a), Left::Lingers(0.005));
    assert!(sim.started().is_empty());
    sim.set.release(0.105, a);
    assert_eq!(sim.started(), [b]);
}

#[test]
fn flows_get_the_same_though_one_asks_for_more() {
    // The hands of these two share no queue.
    let mut sim = Sim::new(queued(64, 2, 50), 4);
    let served = sim.serve([("elephant", 80, 0.01), ("mouse", 8, 0.01)], 2000);
    let (elephant, mouse) = (served["elephant"], served["mouse"]);
    assert!(elephant.abs_diff(mouse) < 200, "{served:?}");
}

#[test]
fn flows_get_the_same_work_though_one_is_slow() {
    let mut sim = Sim::new(queued(64, 1, 50), 4);
    let served = sim.serve([("slow", 40, 0.04), ("quick", 40, 0.01)], 4000);
    let ratio = served["quick"] as f64 / served["slow"] as f64;
    assert!((3.0..5.0).contains(&ratio), "{served:?}");
}

#[test]
fn queues_come_and_go() {
    let mut sim = Sim::new(queued(8, 8, 10), 1);
    let ids: Vec<_> = (0..9).map(|_| sim.arrive("a", Work::ONE).expect("queued")).collect();
    sim.set.configure(0.0, queued(2, 1, 10), 1);
    assert!(sim.set.queues.len() > 2, "queues in use stay");
    sim.set.configure(0.1, queued(2, 1, 10), 20);
    assert_eq!(sim.started().len(), 9, "more seats, more work");
    for id in ids {
        sim.set.leave(1.0, id);
    }
    assert_eq!(sim.set.queues.len(), 2);
    assert!(sim.arrive("a", Work::ONE).is_ok());
    sim.set.configure(2.0, Discipline::Reject, 1);
    assert!(sim.set.queues.len() <= 2);
}
