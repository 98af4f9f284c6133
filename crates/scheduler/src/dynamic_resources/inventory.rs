//! Pools of devices, made of slices, and what of them a node reaches.

use crate::selectors::node_selector_matches;
use api::k8s::core::v1::{Node, NodeSelector};
use api::k8s::resource::v1::{Device, ResourceSlice};
use api::quantity::Quantity;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// The newest generation of a driver's pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub driver: String,
    pub name: String,
    /// All of its slices are there.
    pub complete: bool,
    /// Its names are unique, and its devices consume counters that exist.
    pub valid: bool,
}

/// A device of the cluster.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Shared counters it uses up (by index), and how much of each.
    pub consumes: Vec<(usize, Quantity)>,
    slice: Arc<ResourceSlice>,
    index: usize,
}

impl Candidate {
    /// The device as its driver describes it.
    pub fn device(&self) -> &Device {
        &self.slice.spec.devices.as_deref().unwrap_or_default()[self.index]
    }

    /// The driver it is of.
    pub fn driver(&self) -> &str {
        &self.slice.spec.driver
    }

    /// The name of its pool.
    pub fn pool_name(&self) -> &str {
        &self.slice.spec.pool.name
    }

    /// Whether it may be given several times.
    pub fn is_shareable(&self) -> bool {
        self.device().allow_multiple_allocations == Some(true)
    }

    /// Which nodes reach it.
    pub fn reach(&self) -> Reach<'_> {
        let device = self.device();
        if self.slice.spec.per_device_node_selection == Some(true) {
            return Reach::new(device.node_name.as_deref(), device.all_nodes, device.node_selector.as_ref());
        }
        Reach::of_slice(&self.slice)
    }

    /// Whether an allocation ties its user to one node.
    pub fn binds_to_node(&self) -> bool {
        self.device().binds_to_node == Some(true)
    }
}

/// The nodes that reach a device.
pub(crate) enum Reach<'a> {
    One(&'a str),
    All,
    Selected(&'a NodeSelector),
    None,
}

impl<'a> Reach<'a> {
    fn new(node: Option<&'a str>, all: Option<bool>, selector: Option<&'a NodeSelector>) -> Self {
        match (node.filter(|n| !n.is_empty()), all, selector) {
            (Some(node), ..) => Self::One(node),
            (None, Some(true), _) => Self::All,
            (None, _, Some(selector)) => Self::Selected(selector),
            _ => Self::None,
        }
    }

    fn of_slice(slice: &'a ResourceSlice) -> Self {
        let spec = &slice.spec;
        Self::new(spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref())
    }

    fn holds(&self, node: &Node) -> bool {
        match self {
            Self::One(name) => node.metadata.name.as_deref() == Some(name),
            Self::All => true,
            Self::Selected(selector) => node_selector_matches(selector, node),
            Self::None => false,
        }
    }
}

/// A slice of a pool and where its devices are.
#[derive(Debug)]
struct Part {
    pool: usize,
    slice: Arc<ResourceSlice>,
    devices: Range<usize>,
}

/// What a node reaches, by index.
#[derive(Default)]
pub(crate) struct OnNode {
    /// Devices that can be chosen, in the order they are looked at.
    pub devices: Vec<usize>,
    /// Pools that have anything for the node.
    pub pools: Vec<usize>,
}

type Names = HashMap<String, HashMap<String, HashMap<String, usize>>>;

/// All pools, in a fixed order.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub pools: Vec<Pool>,
    pub devices: Vec<Candidate>,
    /// How much there is of every shared counter.
    pub counters: Vec<Quantity>,
    source: Vec<Arc<ResourceSlice>>,
    parts: Vec<Part>,
    /// Parts of one node, and those that further nodes may reach.
    by_node: HashMap<String, Vec<usize>>,
    shared: Vec<usize>,
    names: Names,
}

impl Inventory {
    /// Puts slices together; those of older generations do not count.
    pub fn new(source: Vec<Arc<ResourceSlice>>) -> Self {
        let mut pools: BTreeMap<(String, String), Vec<Arc<ResourceSlice>>> = BTreeMap::new();
        for slice in &source {
            let key = (slice.spec.driver.clone(), slice.spec.pool.name.clone());
            let pool = pools.entry(key).or_default();
            let newest = pool.first().map_or(i64::MIN, |s| s.spec.pool.generation);
            match slice.spec.pool.generation {
                older if older < newest => {}
                same if same == newest => pool.push(slice.clone()),
                _ => *pool = vec![slice.clone()],
            }
        }
        let mut out = Self { source, ..Self::default() };
        for ((driver, name), slices) in pools {
            out.add_pool(driver, name, slices);
        }
        out
    }

    /// Whether it was made of these very slices.
    pub fn is_of(&self, slices: &[Arc<ResourceSlice>]) -> bool {
        self.source.len() == slices.len() && self.source.iter().zip(slices).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn add_pool(&mut self, driver: String, name: String, mut slices: Vec<Arc<ResourceSlice>>) {
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let expected = slices.first().map_or(0, |s| s.spec.pool.resource_slice_count);
        let complete = i64::try_from(slices.len()).is_ok_and(|n| n == expected);
        let (counters, mut valid) = self.add_counters(&slices);
        let mut seen = HashSet::new();
        for slice in &slices {
            let start = self.devices.len();
            for (index, device) in slice.spec.devices.iter().flatten().enumerate() {
                let consumes = consumption(device, &counters);
                valid &= consumes.is_some() && seen.insert(device.name.as_str());
                let pools = self.names.entry(driver.clone()).or_default();
                pools.entry(name.clone()).or_default().insert(device.name.clone(), self.devices.len());
                let consumes = consumes.unwrap_or_default();
                self.devices.push(Candidate { consumes, slice: slice.clone(), index });
            }
            self.add_part(slice.clone(), start..self.devices.len());
        }
        self.pools.push(Pool { driver, name, complete, valid });
    }

    fn add_part(&mut self, slice: Arc<ResourceSlice>, devices: Range<usize>) {
        let part = self.parts.len();
        match slice.spec.node_name.as_deref().filter(|n| !n.is_empty() && slice.spec.shared_counters.is_none()) {
            Some(node) => self.by_node.entry(node.to_owned()).or_default().push(part),
            None => self.shared.push(part),
        }
        self.parts.push(Part { pool: self.pools.len(), slice, devices });
    }

    /// Numbers a pool's counters; tells whether its sets have names of their own.
    fn add_counters(&mut self, slices: &[Arc<ResourceSlice>]) -> (CounterIds, bool) {
        let (mut ids, mut valid) = (CounterIds::new(), true);
        for set in slices.iter().flat_map(|s| s.spec.shared_counters.iter().flatten()) {
            valid &= !ids.contains_key(&set.name);
            let of_set = ids.entry(set.name.clone()).or_default();
            for (name, counter) in &set.counters {
                of_set.insert(name.clone(), self.counters.len());
                self.counters.push(Quantity::parse(&counter.value.0).unwrap_or_else(|_| Quantity::from_milli(0)));
            }
        }
        (ids, valid)
    }

    /// The devices that a node reaches, and the pools that have any for it.
    pub fn of_node(&self, node: &Node) -> OnNode {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut parts: Vec<usize> = self.by_node.get(name).into_iter().flatten().chain(&self.shared).copied().collect();
        parts.sort_unstable();
        let (mut out, mut late) = (OnNode::default(), Vec::new());
        for of_pool in parts.chunk_by(|a, b| self.parts[*a].pool == self.parts[*b].pool) {
            let mut devices = Vec::new();
            let relevant = of_pool.iter().filter(|part| self.reached(&self.parts[**part], node, &mut devices)).count();
            let pool = self.parts[of_pool[0]].pool;
            if relevant == 0 {
                continue;
            }
            out.pools.push(pool);
            // What is there may be half of an update.
            if self.pools[pool].complete && self.pools[pool].valid {
                // Devices that may turn out not to be ready come last.
                let conditional = devices.iter().any(|d| self.devices[*d].device().binding_conditions.is_some());
                if conditional { late.extend(devices) } else { out.devices.extend(devices) }
            }
        }
        out.devices.extend(late);
        out
    }

    /// Adds what a node reaches of a part; tells whether the part matters to it.
    fn reached(&self, part: &Part, node: &Node, devices: &mut Vec<usize>) -> bool {
        let spec = &part.slice.spec;
        let before = devices.len();
        if spec.per_device_node_selection == Some(true) {
            devices.extend(part.devices.clone().filter(|d| self.devices[*d].reach().holds(node)));
        } else if Reach::of_slice(&part.slice).holds(node) {
            devices.extend(part.devices.clone());
            return true;
        }
        devices.len() > before || spec.shared_counters.is_some()
    }

    /// The device of an allocation, wherever it is.
    pub fn find(&self, driver: &str, pool: &str, device: &str) -> Option<usize> {
        self.names.get(driver)?.get(pool)?.get(device).copied()
    }
}

/// Counters of a pool by set and name.
type CounterIds = HashMap<String, HashMap<String, usize>>;

/// What a device uses up; `None` where a counter does not exist.
fn consumption(device: &Device, counters: &CounterIds) -> Option<Vec<(usize, Quantity)>> {
    let mut out = Vec::new();
    for set in device.consumes_counters.iter().flatten() {
        let of_set = counters.get(&set.counter_set)?;
        for (name, counter) in &set.counters {
            out.push((*of_set.get(name)?, Quantity::parse(&counter.value.0).ok()?));
        }
    }
    Some(out)
}
