//! What the kernel has, and the differences that are sent to it.

use crate::plan::{Plan, Udp};
use crate::{rules, stale};
use informer::Key;
use net::netlink::{Family as Netlink, Socket};
use net::nft::{Batch, Chain, Element, Expr, Family, commit_all};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};

const NAME: &str = "sagong-proxy";

/// Which services want an element, by set and key.
type Claims = HashMap<(&'static str, Vec<u8>), Vec<(Key, Element)>>;

/// The table of this network namespace. All its calls block.
#[derive(Debug)]
pub struct Table {
    cluster_cidr: net::Cidr,
    services: HashMap<Key, Applied>,
    /// Which services want an element, in order of arrival; the kernel has the first one's.
    claims: Claims,
    /// The kernel's table is ours and complete.
    made: bool,
}

/// What a service has in the kernel.
#[derive(Debug, Default)]
struct Applied {
    /// Chains and a digest of their rules.
    chains: BTreeMap<String, u64>,
    sets: BTreeSet<String>,
    elements: Vec<(&'static str, Element)>,
    udp: Vec<Udp>,
}

/// Parts of a batch, each in the order references demand.
struct Changes {
    /// New sets and chains, new rules.
    first: Batch,
    rules: Batch,
    removed: Batch,
    touched: HashMap<(&'static str, Vec<u8>), Option<Element>>,
    old_chains: Vec<String>,
    old_sets: Vec<String>,
}

impl Table {
    /// A table that is made by the first [`Table::apply`].
    pub fn new(cluster_cidr: net::Cidr) -> Table {
        Table { cluster_cidr, services: HashMap::new(), claims: HashMap::new(), made: false }
    }

    /// Addresses of pods.
    pub fn cluster_cidr(&self) -> net::Cidr {
        self.cluster_cidr
    }

    /// Makes the kernel's table match these services (`None`: gone) and forgets what else there was if the
    /// table is new. After an error the next call must name every service, and makes the table anew.
    pub fn apply(&mut self, plans: HashMap<Key, Option<Plan>>) -> net::Result<()> {
        let mut socket = Socket::open(Netlink::Netfilter)?;
        if !self.made {
            self.services.clear();
            self.claims.clear();
        }
        let (batch, stale) = self.difference(plans);
        if let Err(error) = commit_all(&mut socket, &batch) {
            self.made = false;
            return Err(error);
        }
        self.made = true;
        stale::forget(&mut socket, &stale);
        Ok(())
    }

    fn difference(&mut self, plans: HashMap<Key, Option<Plan>>) -> (Batch, Vec<Udp>) {
        let mut changes = Changes::new();
        let mut batch = Batch::new(Family::Ip, NAME);
        if !self.made {
            rules::base(&mut batch);
        }
        let mut stale = Vec::new();
        for (key, plan) in plans {
            self.service(&key, plan.unwrap_or_default(), &mut changes, &mut stale);
        }
        changes.finish(&mut batch, &mut self.claims);
        (batch, stale)
    }

    fn service(&mut self, key: &Key, plan: Plan, changes: &mut Changes, stale: &mut Vec<Udp>) {
        let old = self.services.remove(key).unwrap_or_default();
        let mut new = Applied { elements: plan.elements, udp: plan.udp, ..Applied::default() };
        for set in plan.sets {
            if !old.sets.contains(&set.name) {
                changes.first.add_set(&set);
                changes.first.allow_cut();
            }
            new.sets.insert(set.name);
        }
        for (name, rules) in plan.chains {
            let digest = digest(&rules);
            if old.chains.get(&name) != Some(&digest) {
                changes.chain(&name, &rules, old.chains.contains_key(&name));
            }
            new.chains.insert(name, digest);
        }
        changes.old_chains.extend(old.chains.into_keys().filter(|name| !new.chains.contains_key(name)));
        changes.old_sets.extend(old.sets.into_iter().filter(|name| !new.sets.contains(name)));
        self.claim(key, old.elements, &mut new.elements, changes);
        stale.extend(stale::changed(&old.udp, &new.udp, self.made));
        if !new.chains.is_empty() || !new.elements.is_empty() {
            self.services.insert(key.clone(), new);
        }
    }

    /// Moves a service's claims on elements; notes what the kernel has for each touched one.
    fn claim(
        &mut self,
        key: &Key,
        old: Vec<(&'static str, Element)>,
        new: &mut Vec<(&'static str, Element)>,
        changes: &mut Changes,
    ) {
        let mut seen = HashSet::new();
        new.retain(|(set, element)| seen.insert((*set, element.key.clone())));
        let wanted: HashSet<&(&'static str, Element)> = new.iter().collect();
        let had: HashSet<&(&'static str, Element)> = old.iter().collect();
        for (set, element) in old.iter().filter(|entry| !wanted.contains(entry)) {
            let claims = self.claims.entry((set, element.key.clone())).or_default();
            changes.touch(set, &element.key, claims.first());
            claims.retain(|(owner, _)| owner != key);
        }
        for (set, element) in new.iter().filter(|entry| !had.contains(entry)) {
            let claims = self.claims.entry((set, element.key.clone())).or_default();
            changes.touch(set, &element.key, claims.first());
            claims.push((key.clone(), element.clone()));
        }
    }
}

impl Changes {
    fn new() -> Changes {
        let batch = || Batch::new(Family::Ip, NAME);
        Changes {
            first: batch(),
            rules: batch(),
            removed: batch(),
            touched: HashMap::new(),
            old_chains: Vec::new(),
            old_sets: Vec::new(),
        }
    }

    fn chain(&mut self, name: &str, rules: &[Vec<Expr>], exists: bool) {
        if exists {
            self.rules.flush_chain(name);
        } else {
            self.first.add_chain(&Chain::regular(name));
            self.first.allow_cut();
        }
        rules.iter().for_each(|rule| self.rules.add_rule(name, rule));
        self.rules.allow_cut();
    }

    /// Remembers what the kernel has before the first change of an element.
    fn touch(&mut self, set: &'static str, key: &[u8], before: Option<&(Key, Element)>) {
        self.touched.entry((set, key.to_vec())).or_insert_with(|| before.map(|(_, element)| element.clone()));
    }

    /// Writes the changes; claims that nobody has any more are forgotten.
    fn finish(mut self, batch: &mut Batch, claims: &mut Claims) {
        let mut added: BTreeMap<&'static str, Vec<Element>> = BTreeMap::new();
        let mut deleted: BTreeMap<&'static str, Vec<Element>> = BTreeMap::new();
        for ((set, key), before) in self.touched {
            let element = (set, key);
            let now = claims.get(&element).and_then(|claims| claims.first()).map(|(_, element)| element.clone());
            if now.is_none() {
                claims.remove(&element);
            }
            if before != now {
                deleted.entry(set).or_default().extend(before);
                added.entry(set).or_default().extend(now);
            }
        }
        batch.append(&self.first);
        batch.append(&self.rules);
        for (set, elements) in deleted {
            batch.delete_elements(set, &elements);
        }
        for (set, elements) in added {
            batch.add_elements(set, &elements);
        }
        batch.allow_cut();
        // Rules of all old chains first: they may refer to each other and to sets.
        self.old_chains.iter().for_each(|chain| self.removed.flush_chain(chain));
        self.old_chains.iter().for_each(|chain| self.removed.delete_chain(chain));
        self.old_sets.iter().for_each(|set| self.removed.delete_set(set));
        batch.append(&self.removed);
    }
}

fn digest(rules: &[Vec<Expr>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_end_with_their_services() {
        let mut table = Table::new("10.244.0.0/16".parse().unwrap());
        let [one, other] = ["one", "other"].map(|name| Key::new("default", name));
        let plan = |keys: &[u8]| Plan {
            elements: keys.iter().map(|key| ("set", Element::key(vec![*key]))).collect(),
            ..Plan::default()
        };
        let mut apply = |key: &Key, plan| drop(table.difference(HashMap::from([(key.clone(), plan)])));
        apply(&one, Some(plan(&[1, 2])));
        apply(&other, Some(plan(&[2, 3])));
        apply(&one, Some(plan(&[4])));
        apply(&other, None);
        let left: Vec<_> = table.claims.iter().map(|((_, element), claims)| (element.clone(), claims.len())).collect();
        assert_eq!(left, [(vec![4], 1)]);
    }
}
