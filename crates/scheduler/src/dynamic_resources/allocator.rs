//! The search for devices of one node that serve all claims of a pod.
//!
//! Depth first through claims, requests, their alternatives and devices, each in order; what was chosen is taken back
//! where the rest cannot be served.

use super::capacity::{self, Consumed};
use super::inventory::{Candidate, Inventory, OnNode};
use super::needs::{ClaimNeeds, Count, Need, claim_name};
use super::usage::Usage;
use super::{constraint, result, taints};
use api::k8s::core::v1::Node;
use api::k8s::resource::v1::AllocationResult;
use api::quantity::Quantity;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Most steps of a search on one node; a longer one would hold up all other pods.
const STEPS_PER_NODE: usize = 100_000;
/// Most steps on one node once the pod's cycle has taken [`Limits::LONG`]: enough to look at every device that a node
/// has as a rule, so that nodes which are easy to judge are judged after those which are not.
const STEPS_WHEN_LATE: usize = 5_000;
/// What the evaluation of a device's selectors costs, compared with looking at the device.
const STEPS_PER_MATCH: usize = 10;
/// Most devices of one claim.
const MAX_RESULTS: usize = 32;

/// Why a node does not serve a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Other devices, or fewer users of them, would help.
    NotNow(String),
    /// A claim, class or driver is at fault, or the search takes too long.
    Error(String),
}

/// How long the searches of one pod's cycle may take.
///
/// Each node has steps of its own, whatever other nodes have cost. Only time is shared: after [`Self::LONG`] searches
/// get short, after [`Self::TOO_LONG`] there are no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    began: Instant,
}

impl Limits {
    /// Other pods have waited for this one long enough.
    const LONG: Duration = Duration::from_secs(1);
    /// Nothing else is scheduled meanwhile (upstream allows 10 s for one node and searches many at once).
    const TOO_LONG: Duration = Duration::from_secs(2);

    /// Of a cycle that began then.
    pub fn new(began: Instant) -> Self {
        Self { began }
    }

    /// Whether a search that has taken so many steps may go on.
    fn allow(&self, steps: usize) -> bool {
        let elapsed = self.began.elapsed();
        steps <= STEPS_PER_NODE && elapsed < Self::TOO_LONG && (steps <= STEPS_WHEN_LATE || elapsed < Self::LONG)
    }
}

/// A device chosen for a request.
pub(super) struct Choice<'a> {
    pub claim: usize,
    pub need: &'a Need,
    pub entry: &'a Candidate,
    /// What it takes of a device that is given several times.
    pub share: Option<Rc<Consumed>>,
    device: usize,
    /// It uses up shared counters.
    counted: bool,
}

/// What a part of the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    Not,
    /// More devices than a claim can have: other devices in the requests before would not help.
    TooMany,
}

type Found = Result<Outcome, Refused>;
/// A request's place: its claim, its number there.
type At = (usize, usize);

struct Search<'a> {
    claims: &'a [&'a ClaimNeeds],
    inventory: &'a Inventory,
    usage: &'a Usage,
    node: &'a str,
    on_node: OnNode,
    chosen: Vec<Choice<'a>>,
    /// Shared counters that the choices use up.
    spent: HashMap<usize, Quantity>,
    /// What a need (by its address) would consume of a device; `None`: the device does not match.
    matches: HashMap<(*const Need, usize), Option<Rc<Consumed>>>,
    limits: Limits,
    steps: usize,
}

/// Finds an allocation for every claim, in their order.
pub(crate) fn allocate(
    claims: &[&ClaimNeeds],
    inventory: &Inventory,
    usage: &Usage,
    node: &Node,
    limits: Limits,
) -> Result<Vec<AllocationResult>, Refused> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut search = Search {
        claims,
        inventory,
        usage,
        node: name,
        on_node: inventory.of_node(node),
        chosen: Vec::new(),
        spent: HashMap::new(),
        matches: HashMap::new(),
        limits,
        steps: 0,
    };
    claims.iter().try_for_each(|claim| search.check(claim))?;
    if search.request((0, 0))? != Outcome::Served {
        let invalid = search.on_node.pools.iter().any(|p| !inventory.pools[*p].valid);
        let why = if invalid { "invalid resource pools were encountered" } else { "cannot allocate all claims" };
        return Err(Refused::NotNow(why.into()));
    }
    claims.iter().enumerate().map(|(at, c)| result::build(&c.claim, at, &search.chosen, name)).collect()
}

impl<'a> Search<'a> {
    /// Refuses a claim that no choice could serve.
    fn check(&mut self, needs: &'a ClaimNeeds) -> Result<(), Refused> {
        let mut least = 0usize;
        for alternatives in &needs.requests {
            let mut of_request = usize::MAX;
            for need in alternatives {
                let count = match need.count {
                    Count::Exactly(count) => count,
                    Count::All => self.all_of(needs, need)?.len(),
                };
                of_request = of_request.min(count);
            }
            least = least.saturating_add(of_request);
        }
        let name = claim_name(&needs.claim);
        if least > MAX_RESULTS {
            let why = format!("number of requested devices {least} exceeds the claim limit of {MAX_RESULTS}");
            return Err(Refused::Error(format!("claim {name}: {why}")));
        }
        let constraints = needs.claim.spec.devices.iter().flat_map(|d| d.constraints.iter().flatten());
        match constraints.into_iter().position(|c| c.match_attribute.is_none() && c.distinct_attribute.is_none()) {
            Some(at) => {
                let why = "empty constraint (unsupported constraint type?)";
                Err(Refused::Error(format!("claim {name}, constraint #{at}: {why}")))
            }
            None => Ok(()),
        }
    }

    /// Serves a request and all after it.
    fn request(&mut self, at: At) -> Found {
        let claims = self.claims;
        let Some(needs) = claims.get(at.0) else {
            return Ok(Outcome::Served);
        };
        let Some(alternatives) = needs.requests.get(at.1) else {
            // Another choice here may need fewer devices there.
            let rest = self.request((at.0 + 1, 0))?;
            return Ok(if rest == Outcome::TooMany { Outcome::Not } else { rest });
        };
        let mut all_too_many = true;
        for need in alternatives {
            let served = match need.count {
                Count::Exactly(count) => self.some(at, need, count)?,
                Count::All => self.all(at, need)?,
            };
            if served == Outcome::Served {
                return Ok(served);
            }
            all_too_many &= served == Outcome::TooMany;
        }
        Ok(if all_too_many { Outcome::TooMany } else { Outcome::Not })
    }

    fn is_too_many(&self, claim: usize, more: usize) -> bool {
        self.chosen.iter().filter(|c| c.claim == claim).count().saturating_add(more) > MAX_RESULTS
    }

    /// Chooses so many devices that match.
    fn some(&mut self, at: At, need: &'a Need, count: usize) -> Found {
        if self.is_too_many(at.0, count) {
            return Ok(Outcome::TooMany);
        }
        let mut usable = Vec::new();
        for index in 0..self.on_node.devices.len() {
            let device = self.on_node.devices[index];
            if !self.is_free(at.0, need, device) {
                continue;
            }
            match self.consumption(need, device) {
                Ok(None) => {}
                Err(error) if error == self.timed_out() => return Err(error),
                // What is wrong with a device matters only where the search comes to it.
                Ok(Some(_)) | Err(_) => usable.push(device),
            }
        }
        self.pick(at, need, count, &usable)
    }

    /// Chooses so many of the devices: their order does not matter.
    fn pick(&mut self, at: At, need: &'a Need, count: usize, devices: &[usize]) -> Found {
        if count == 0 {
            return self.request((at.0, at.1 + 1));
        }
        for (index, device) in devices.iter().enumerate() {
            if devices.len() - index < count {
                break;
            }
            if !self.choose(at.0, need, *device)? {
                continue;
            }
            match self.pick(at, need, count - 1, &devices[index + 1..])? {
                Outcome::Not => self.take_back(),
                Outcome::TooMany => {
                    self.take_back();
                    return Ok(Outcome::TooMany);
                }
                Outcome::Served => return Ok(Outcome::Served),
            }
        }
        Ok(Outcome::Not)
    }

    /// The devices that a request for all asks for; none may be missing.
    fn all_of(&mut self, needs: &ClaimNeeds, need: &Need) -> Result<Vec<usize>, Refused> {
        let request = need.request.rsplit('/').next().unwrap_or_default();
        for pool in &self.on_node.pools {
            let pool = &self.inventory.pools[*pool];
            let state = match (pool.complete, pool.valid) {
                (false, _) => "being updated",
                (true, false) => "invalid",
                (true, true) => continue,
            };
            let why =
                format!("asks for all devices, but resource pool {}/{} is currently {state}", pool.driver, pool.name);
            return Err(Refused::Error(format!("claim {}, request {request}: {why}", claim_name(&needs.claim))));
        }
        let mut out = Vec::new();
        for index in 0..self.on_node.devices.len() {
            let device = self.on_node.devices[index];
            if self.consumption(need, device)?.is_some() {
                out.push(device);
            }
        }
        Ok(out)
    }

    /// Chooses every device that matches; there must be one.
    fn all(&mut self, at: At, need: &'a Need) -> Found {
        let needs = self.claims[at.0];
        let devices = self.all_of(needs, need)?;
        if self.is_too_many(at.0, devices.len()) {
            return Ok(Outcome::TooMany);
        }
        let before = self.chosen.len();
        let mut complete = !devices.is_empty();
        for device in devices {
            complete = complete && self.choose(at.0, need, device)?;
        }
        let outcome = if complete { self.request((at.0, at.1 + 1))? } else { Outcome::Not };
        while outcome != Outcome::Served && self.chosen.len() > before {
            self.take_back();
        }
        Ok(outcome)
    }

    fn choose(&mut self, claim: usize, need: &'a Need, device: usize) -> Result<bool, Refused> {
        self.step(1)?;
        let Some(consumed) = self.consumption(need, device)? else {
            return Ok(false);
        };
        if !self.is_free(claim, need, device) {
            return Ok(false);
        }
        let inventory = self.inventory;
        let entry = &inventory.devices[device];
        let share = entry.is_shareable().then_some(consumed);
        // The first user of a device that is given several times pays for all.
        let counted =
            share.is_none() || !(self.usage.is_in_use(device) || self.chosen.iter().any(|c| c.device == device));
        if share.as_ref().is_some_and(|share| !self.is_left(device, share)) || counted && !self.counters_suffice(entry)
        {
            return Ok(false);
        }
        if !self.constraints_hold(claim, need, entry) {
            if need.count == Count::All {
                let id = format!("{}/{}/{}", entry.driver(), entry.pool_name(), entry.device().name);
                let request = need.request.rsplit('/').next().unwrap_or_default();
                let why = format!("cannot add device {id} because a claim constraint would not be satisfied");
                let name = claim_name(&self.claims[claim].claim);
                return Err(Refused::Error(format!("claim {name}, request {request}: {why}")));
            }
            return Ok(false);
        }
        if counted {
            self.spend(entry);
        }
        self.chosen.push(Choice { claim, need, entry, share, device, counted });
        Ok(true)
    }

    fn take_back(&mut self) {
        let Some(choice) = self.chosen.pop().filter(|c| c.counted) else {
            return;
        };
        for (counter, amount) in &choice.entry.consumes {
            if let Some(spent) = self.spent.get_mut(counter) {
                *spent = spent.minus(amount);
            }
        }
    }

    fn spend(&mut self, entry: &Candidate) {
        for (counter, amount) in &entry.consumes {
            let spent = self.spent.get(counter).map_or(*amount, |spent| spent.plus(amount));
            self.spent.insert(*counter, spent);
        }
    }

    fn counters_suffice(&self, entry: &Candidate) -> bool {
        entry.consumes.iter().all(|(counter, amount)| {
            let wanted = self.spent.get(counter).map_or(*amount, |spent| spent.plus(amount));
            self.usage.left(*counter).is_some_and(|left| *left >= wanted)
        })
    }

    fn is_free(&self, claim: usize, need: &Need, device: usize) -> bool {
        let same = |c: &&Choice<'_>| c.device == device && c.share.is_none();
        let mut chosen = self.chosen.iter().filter(same);
        let free = if need.admin {
            chosen.all(|c| c.claim != claim)
        } else {
            chosen.next().is_none() && !self.usage.is_taken(device)
        };
        free && taints::tolerated(self.inventory.devices[device].device(), &need.tolerations)
    }

    /// Whether a device that is given several times has a share left.
    fn is_left(&self, device: usize, share: &Consumed) -> bool {
        let mut sum = share.clone();
        self.usage.consumed(device).into_iter().for_each(|used| capacity::add(&mut sum, used));
        let here = self.chosen.iter().filter(|c| c.device == device).filter_map(|c| c.share.as_deref());
        here.for_each(|used| capacity::add(&mut sum, used));
        capacity::suffices(self.inventory.devices[device].device(), &sum)
    }

    /// What a request would consume of a device; `None`: it is not of the kind that is asked for.
    fn consumption(&mut self, need: &Need, device: usize) -> Result<Option<Rc<Consumed>>, Refused> {
        let key = (std::ptr::from_ref(need), device);
        if let Some(known) = self.matches.get(&key) {
            return Ok(known.clone());
        }
        self.step(STEPS_PER_MATCH)?;
        let entry = &self.inventory.devices[device];
        let matches = need.selectors.match_device(entry.driver(), entry.device()).map_err(Refused::Error)?;
        let consumed = matches.then(|| capacity::consumption(entry.device(), need.capacity.as_ref())).flatten();
        let consumed = consumed.filter(|c| capacity::suffices(entry.device(), c)).map(Rc::new);
        self.matches.insert(key, consumed.clone());
        Ok(consumed)
    }

    fn step(&mut self, steps: usize) -> Result<(), Refused> {
        self.steps += steps;
        if self.limits.allow(self.steps) { Ok(()) } else { Err(self.timed_out()) }
    }

    fn timed_out(&self) -> Refused {
        Refused::Error(format!("node {}: timed out trying to allocate devices", self.node))
    }

    fn constraints_hold(&self, claim: usize, need: &Need, entry: &Candidate) -> bool {
        let mut constraints = self.claims[claim].claim.spec.devices.iter().flat_map(|d| d.constraints.iter().flatten());
        constraints.all(|c| {
            let chosen = self.chosen.iter().filter(|c| c.claim == claim).map(|c| (c.need.request.as_str(), c.entry));
            constraint::holds(c, &need.request, entry, chosen)
        })
    }
}
