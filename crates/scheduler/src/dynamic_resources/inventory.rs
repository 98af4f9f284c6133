//! Pools of devices, made of slices, and what of them a node reaches.

use super::DeviceId;
use crate::selectors::node_selector_matches;
use api::k8s::core::v1::{Node, NodeSelector};
use api::k8s::resource::v1::{Device, ResourceSlice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The newest generation of a driver's pool.
pub(crate) struct Pool {
    pub driver: String,
    pub name: String,
    /// All of its slices are there.
    pub complete: bool,
    slices: Vec<Arc<ResourceSlice>>,
}

/// A device that a node reaches.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub id: DeviceId,
    slice: Arc<ResourceSlice>,
    index: usize,
}

impl Candidate {
    /// The device as its driver describes it.
    pub fn device(&self) -> &Device {
        &self.slice.spec.devices.as_deref().unwrap_or_default()[self.index]
    }

    /// Which nodes reach it.
    pub fn reach(&self) -> Reach<'_> {
        let (spec, device) = (&self.slice.spec, self.device());
        if spec.per_device_node_selection == Some(true) {
            return Reach::new(device.node_name.as_deref(), device.all_nodes, device.node_selector.as_ref());
        }
        Reach::new(spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref())
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

    fn holds(&self, node: &Node) -> bool {
        match self {
            Self::One(name) => node.metadata.name.as_deref() == Some(name),
            Self::All => true,
            Self::Selected(selector) => node_selector_matches(selector, node),
            Self::None => false,
        }
    }
}

/// All pools, in a fixed order.
pub(crate) struct Inventory {
    pools: Vec<Pool>,
}

impl Inventory {
    /// Puts slices together; those of older generations do not count.
    pub fn new(slices: Vec<Arc<ResourceSlice>>) -> Self {
        let mut pools: BTreeMap<(String, String), Vec<Arc<ResourceSlice>>> = BTreeMap::new();
        for slice in slices {
            let key = (slice.spec.driver.clone(), slice.spec.pool.name.clone());
            let pool = pools.entry(key).or_default();
            let newest = pool.first().map_or(i64::MIN, |s| s.spec.pool.generation);
            match slice.spec.pool.generation {
                older if older < newest => {}
                same if same == newest => pool.push(slice),
                _ => *pool = vec![slice],
            }
        }
        Self { pools: pools.into_iter().map(|((driver, name), slices)| Pool::new(driver, name, slices)).collect() }
    }

    /// The devices that a node reaches, and the pools that have any for it.
    pub fn of_node(&self, node: &Node) -> (Vec<Candidate>, Vec<&Pool>) {
        let (mut devices, mut pools) = (Vec::new(), Vec::new());
        for pool in &self.pools {
            let before = devices.len();
            devices.extend(pool.devices().filter(|d| d.reach().holds(node)));
            if devices.len() > before || pool.is_of(node) {
                pools.push(pool);
            }
            if !pool.complete {
                // What is there may be half of an update.
                devices.truncate(before);
            }
        }
        (devices, pools)
    }

    /// The device of an allocation, wherever it is.
    pub fn find(&self, id: &DeviceId) -> Option<Candidate> {
        let pool = self.pools.iter().find(|p| p.driver == id.driver && p.name == id.pool)?;
        pool.devices().find(|d| d.id == *id)
    }

    /// The pools.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }
}

impl Pool {
    fn new(driver: String, name: String, mut slices: Vec<Arc<ResourceSlice>>) -> Self {
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let expected = slices.first().map_or(0, |s| s.spec.pool.resource_slice_count);
        let complete = i64::try_from(slices.len()).is_ok_and(|n| n == expected);
        Self { driver, name, complete, slices }
    }

    fn devices(&self) -> impl Iterator<Item = Candidate> {
        self.slices.iter().flat_map(move |slice| {
            let devices = slice.spec.devices.as_deref().unwrap_or_default();
            devices.iter().enumerate().map(move |(index, device)| Candidate {
                id: DeviceId { driver: self.driver.clone(), pool: self.name.clone(), device: device.name.clone() },
                slice: slice.clone(),
                index,
            })
        })
    }

    fn is_of(&self, node: &Node) -> bool {
        let reach = |s: &Arc<ResourceSlice>| {
            Reach::new(s.spec.node_name.as_deref(), s.spec.all_nodes, s.spec.node_selector.as_ref()).holds(node)
        };
        self.slices.iter().any(reach)
    }

    /// The pool's sets of shared counters.
    pub fn counter_sets(&self) -> impl Iterator<Item = &api::k8s::resource::v1::CounterSet> {
        self.slices.iter().flat_map(|s| s.spec.shared_counters.iter().flatten())
    }
}
