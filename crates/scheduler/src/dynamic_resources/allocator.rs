//! The search for devices of one node that serve all claims of a pod.
//!
//! Depth first through claims, requests, their alternatives and devices, each in order; what was chosen is taken back
//! where the rest cannot be served.

use super::counters::Counters;
use super::inventory::{Candidate, Inventory};
use super::needs::{ClaimNeeds, Count, Need, claim_name};
use super::{DeviceId, constraint, result, taints};
use api::k8s::core::v1::Node;
use api::k8s::resource::v1::AllocationResult;
use api::quantity::Quantity;
use std::collections::{HashMap, HashSet};

/// Devices looked at in one search; more would hold up all other pods.
const MAX_STEPS: usize = 100_000;
/// Most devices of one claim.
const MAX_RESULTS: usize = 32;

/// Why a node does not serve a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Other devices, or fewer users of them, would help.
    NotNow(String),
    /// A claim, class or driver is at fault.
    Error(String),
}

/// A device chosen for a request.
pub(super) struct Choice<'a> {
    pub claim: usize,
    pub need: &'a Need,
    pub device: Candidate,
}

struct Search<'a> {
    claims: &'a [ClaimNeeds],
    devices: Vec<Candidate>,
    taken: &'a HashSet<DeviceId>,
    counters: Counters,
    chosen: Vec<Choice<'a>>,
    /// Whether the selectors of a need (by its address) hold for a device.
    matches: HashMap<(*const Need, usize), bool>,
    incomplete: Vec<String>,
    steps: usize,
}

/// Finds an allocation for every claim, in their order.
pub(crate) fn allocate(
    claims: &[ClaimNeeds],
    inventory: &Inventory,
    taken: &HashSet<DeviceId>,
    node: &Node,
) -> Result<Vec<AllocationResult>, Refused> {
    let (devices, pools) = inventory.of_node(node);
    let incomplete = pools.iter().filter(|p| !p.complete).map(|p| format!("{}/{}", p.driver, p.name)).collect();
    let mut search = Search {
        claims,
        devices,
        taken,
        counters: Counters::new(inventory, taken),
        chosen: Vec::new(),
        matches: HashMap::new(),
        incomplete,
        steps: 0,
    };
    if !search.request(0, 0)? {
        return Err(Refused::NotNow("cannot allocate all claims".into()));
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    claims.iter().enumerate().map(|(at, c)| result::build(&c.claim, at, &search.chosen, name)).collect()
}

type Found = Result<bool, Refused>;

impl<'a> Search<'a> {
    /// Serves a request and all after it.
    fn request(&mut self, claim: usize, request: usize) -> Found {
        let claims = self.claims;
        let Some(needs) = claims.get(claim) else { return Ok(true) };
        let Some(alternatives) = needs.requests.get(request) else { return self.request(claim + 1, 0) };
        for need in alternatives {
            let served = match need.count {
                Count::Exactly(count) => self.pick((claim, request), need, count, 0)?,
                Count::All => self.all((claim, request), need)?,
            };
            if served {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Chooses so many further devices, from one on: their order does not matter.
    fn pick(&mut self, at: (usize, usize), need: &'a Need, count: usize, from: usize) -> Found {
        if count == 0 {
            return self.request(at.0, at.1 + 1);
        }
        for index in from..self.devices.len() {
            if !self.choose(at.0, need, index)? {
                continue;
            }
            if self.pick(at, need, count - 1, index + 1)? {
                return Ok(true);
            }
            self.take_back();
        }
        Ok(false)
    }

    /// Chooses every device that matches; there must be one, and none may be missing.
    fn all(&mut self, at: (usize, usize), need: &'a Need) -> Found {
        if let Some(pool) = self.incomplete.first() {
            let claim = claim_name(&self.claims[at.0].claim);
            let why = format!("asks for all devices, but resource pool {pool} is currently being updated");
            return Err(Refused::NotNow(format!("claim {claim}, request {}: {why}", need.request)));
        }
        let before = self.chosen.len();
        let mut complete = true;
        for index in 0..self.devices.len() {
            if complete && self.matches(need, index)? {
                complete = self.choose(at.0, need, index)?;
            }
        }
        if complete && self.chosen.len() > before && self.request(at.0, at.1 + 1)? {
            return Ok(true);
        }
        while self.chosen.len() > before {
            self.take_back();
        }
        Ok(false)
    }

    fn choose(&mut self, claim: usize, need: &'a Need, index: usize) -> Found {
        if !self.is_free(claim, need, index) || !self.matches(need, index)? || !self.constraints_hold(claim, need, index) {
            return Ok(false);
        }
        let device = self.devices[index].clone();
        if !need.admin {
            if !self.counters.suffice(&device) {
                return Ok(false);
            }
            self.counters.take(&device);
        }
        self.chosen.push(Choice { claim, need, device });
        Ok(true)
    }

    fn take_back(&mut self) {
        if let Some(choice) = self.chosen.pop().filter(|c| !c.need.admin) {
            self.counters.give_back(&choice.device);
        }
    }

    fn is_free(&self, claim: usize, need: &Need, index: usize) -> bool {
        let device = &self.devices[index];
        let (mut same_request, mut of_claim) = (false, 0);
        for choice in &self.chosen {
            let same = choice.device.id == device.id;
            same_request |= same && (!choice.need.admin && !need.admin || std::ptr::eq(choice.need, need));
            of_claim += usize::from(choice.claim == claim);
        }
        !same_request
            && of_claim < MAX_RESULTS
            && (need.admin || !self.taken.contains(&device.id))
            && taints::tolerated(device.device(), &need.tolerations)
    }

    /// Whether a device is of the kind that is asked for.
    fn matches(&mut self, need: &Need, index: usize) -> Found {
        let key = (std::ptr::from_ref(need), index);
        if let Some(known) = self.matches.get(&key) {
            return Ok(*known);
        }
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Refused::Error("timed out trying to allocate devices".into()));
        }
        let candidate = &self.devices[index];
        let device = candidate.device();
        let supported = device.allow_multiple_allocations != Some(true)
            && device.binding_conditions.as_ref().is_none_or(Vec::is_empty);
        let matches = supported
            && has_capacity(need, candidate)
            && need.selectors.match_device(&candidate.id.driver, device).map_err(Refused::Error)?;
        self.matches.insert(key, matches);
        Ok(matches)
    }

    fn constraints_hold(&self, claim: usize, need: &Need, index: usize) -> bool {
        let constraints = self.claims[claim].claim.spec.devices.iter().flat_map(|d| d.constraints.iter().flatten());
        let chosen: Vec<(&str, &Candidate)> = self
            .chosen
            .iter()
            .filter(|c| c.claim == claim)
            .map(|c| (c.need.request.as_str(), &c.device))
            .collect();
        let device = &self.devices[index];
        constraints.into_iter().all(|c| constraint::holds(c, &need.request, device, &chosen))
    }
}

/// Whether a device has what a request wants of it.
fn has_capacity(need: &Need, candidate: &Candidate) -> bool {
    let parse = |text: &str| Quantity::parse(text).ok();
    let wanted = need.capacity.iter().flat_map(|c| c.requests.iter().flatten());
    wanted.into_iter().all(|(name, amount)| {
        let capacity = candidate.device().capacity.as_ref().and_then(|c| c.get(name));
        let has = capacity.and_then(|c| parse(&c.value.0));
        has.zip(parse(&amount.0)).is_some_and(|(has, wants)| has >= wants)
    })
}
