//! What probes last said of each running container.

use crate::objects::Wake;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// The three kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Restarts the container.
    Liveness,
    /// Takes it out of services.
    Readiness,
    /// Holds the others back.
    Startup,
}

impl ProbeKind {
    /// The word at the start of event texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }
}

/// Results by container id; a container that was never judged has none.
pub struct ProbeResults {
    wake: Wake,
    results: Mutex<HashMap<(String, ProbeKind), bool>>,
    counts: Mutex<BTreeMap<Counted, u64>>,
}

/// Uid of the pod, container, kind and result.
pub type Counted = (String, String, ProbeKind, &'static str);

impl ProbeResults {
    /// Makes an empty table; `wake` is told of changes.
    pub fn new(wake: Wake) -> Self {
        Self { wake, results: Mutex::default(), counts: Mutex::default() }
    }

    /// The last judgement.
    pub fn get(&self, container_id: &str, kind: ProbeKind) -> Option<bool> {
        self.results.lock().get(&(container_id.to_owned(), kind)).copied()
    }

    /// Notes a judgement and wakes the pod when it is news.
    pub fn set(&self, pod_uid: &str, container_id: &str, kind: ProbeKind, success: bool) {
        let before = self.results.lock().insert((container_id.to_owned(), kind), success);
        if before != Some(success) {
            (self.wake)(pod_uid);
        }
    }

    /// Counts a probe that was carried out.
    pub fn count(&self, pod_uid: &str, container: &str, kind: ProbeKind, result: &'static str) {
        *self.counts.lock().entry((pod_uid.to_owned(), container.to_owned(), kind, result)).or_default() += 1;
    }

    /// How many probes there were.
    pub fn counts(&self) -> Vec<(Counted, u64)> {
        self.counts.lock().iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    /// Forgets a pod's counts.
    pub fn release(&self, pod_uid: &str) {
        self.counts.lock().retain(|(uid, ..), _| uid != pod_uid);
    }

    /// Forgets a container.
    pub fn remove(&self, container_id: &str) {
        self.results.lock().retain(|(id, _), _| id != container_id);
    }
}
