//! Allocation of claims from slices, as drivers and users write them.

use super::allocator::{Refused, allocate};
use super::inventory::Inventory;
use super::ledger::Ledger;
use super::needs::ClaimNeeds;
use api::k8s::core::v1::Node;
use api::k8s::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("object"))
}

fn node(name: &str, zone: &str) -> Arc<Node> {
    object(json!({"metadata": {"name": name, "labels": {"zone": zone}}}))
}

/// A slice of driver `d`, pool `p`; `more` is the rest of its spec.
fn slice(name: &str, generation: i64, count: i64, devices: Value, more: Value) -> Arc<ResourceSlice> {
    let pool = json!({"name": "p", "generation": generation, "resourceSliceCount": count});
    let mut spec = json!({"driver": "d", "pool": pool, "devices": devices});
    spec.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    object(json!({"metadata": {"name": name}, "spec": spec}))
}

fn gpus() -> Value {
    let gpu = |name: &str, memory: &str, numa: i64, version: &str| {
        json!({"name": name, "capacity": {"memory": {"value": memory}},
            "attributes": {"numa": {"int": numa}, "d/model": {"string": "x"}, "driverVersion": {"version": version}}})
    };
    json!([gpu("g0", "10Gi", 0, "1.2.0"), gpu("g1", "20Gi", 0, "1.3.0"), gpu("g2", "20Gi", 1, "2.0.0")])
}

fn claim(name: &str, requests: Value, constraints: Value) -> Arc<ResourceClaim> {
    let devices = json!({"requests": requests, "constraints": constraints,
        "config": [{"requests": ["r"], "opaque": {"driver": "d", "parameters": {"of": "claim"}}}]});
    object(json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"devices": devices}}))
}

fn exactly(name: &str, more: Value) -> Value {
    let mut request = json!({"deviceClassName": "gpu"});
    request.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    json!({"name": name, "exactly": request})
}

fn selector(text: &str) -> Value {
    json!([{"cel": {"expression": text}}])
}

fn classes(name: &str) -> Option<Arc<DeviceClass>> {
    let class = json!({"metadata": {"name": name}, "spec": {"selectors": selector("device.driver == 'd'"),
        "config": [{"opaque": {"driver": "d", "parameters": {"of": "class"}}}]}});
    (name == "gpu").then(|| object(class))
}

type Devices = Vec<(String, String)>;

/// Requests and devices of each claim's allocation.
fn run(slices: Vec<Arc<ResourceSlice>>, claims: &[Arc<ResourceClaim>], taken: &[&str]) -> Result<Vec<Devices>, Refused> {
    let needs: Result<Vec<_>, _> = claims.iter().map(|c| ClaimNeeds::new(&classes, c)).collect();
    let id = |device: &&str| super::DeviceId { driver: "d".into(), pool: "p".into(), device: (*device).into() };
    let taken: HashSet<_> = taken.iter().map(id).collect();
    let found = allocate(&needs.map_err(Refused::Error)?, &Inventory::new(slices), &taken, &node("a", "z1"))?;
    let devices = |a: api::k8s::resource::v1::AllocationResult| {
        let results = a.devices.and_then(|d| d.results).unwrap_or_default();
        results.into_iter().map(|r| (r.request, r.device)).collect()
    };
    Ok(found.into_iter().map(devices).collect())
}

fn local() -> Vec<Arc<ResourceSlice>> {
    vec![slice("s", 1, 1, gpus(), json!({"nodeName": "a"}))]
}

fn check(requests: Value, constraints: Value, taken: &[&str], expect: Option<&[&str]>) {
    let got = run(local(), &[claim("c", requests.clone(), constraints)], taken);
    let got = got.ok().map(|all| all[0].iter().map(|(_, device)| device.clone()).collect::<Vec<_>>());
    assert_eq!(got, expect.map(|e| e.iter().map(|d| (*d).to_owned()).collect()), "{requests}");
}

#[test]
fn requests_find_devices() {
    let none = || json!([]);
    check(json!([exactly("r", json!({}))]), none(), &[], Some(&["g0"]));
    check(json!([exactly("r", json!({}))]), none(), &["g0", "g1"], Some(&["g2"]));
    check(json!([exactly("r", json!({"count": 2}))]), none(), &["g0"], Some(&["g1", "g2"]));
    check(json!([exactly("r", json!({"count": 4}))]), none(), &[], None);
    check(json!([exactly("r", json!({"allocationMode": "All"}))]), none(), &[], Some(&["g0", "g1", "g2"]));
    check(json!([exactly("r", json!({"allocationMode": "All"}))]), none(), &["g1"], None);
    check(json!([exactly("r", json!({"adminAccess": true, "allocationMode": "All"}))]), none(), &["g1"], Some(&["g0", "g1", "g2"]));
    // What the first request took is taken back for the second.
    let small = exactly("b", json!({"selectors": selector("device.attributes['d'].numa == 0")}));
    check(json!([exactly("a", json!({"count": 2})), small]), none(), &[], Some(&["g0", "g2", "g1"]));
}

#[test]
fn selectors_see_attributes_and_capacity() {
    let with = |text: &str| json!([exactly("r", json!({"selectors": selector(text)}))]);
    let check = |text: &str, expect: Option<&[&str]>| check(with(text), json!([]), &[], expect);
    check("device.capacity['d'].memory.compareTo(quantity('15Gi')) > 0", Some(&["g1"]));
    check("device.attributes['d'].driverVersion.isGreaterThan(semver('1.9.0'))", Some(&["g2"]));
    check("device.attributes['d'].model == 'y'", None);
    check("'nothing' in device.attributes['elsewhere']", None);
    check("!has(device.attributes['elsewhere'].nothing)", Some(&["g0"]));
    check("!device.allowMultipleAllocations && device.attributes['d'].numa == 1", Some(&["g2"]));
    let error = |text: &str| match run(local(), &[claim("c", with(text), json!([]))], &[]) {
        Err(Refused::Error(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(error("device.nothing").starts_with("claim n/c: selector #0: CEL compile error: compilation failed: "));
    let missing = error("device.attributes['d'].missing == 1");
    assert!(missing.starts_with("claim n/c: selector #0: CEL runtime error: no such key: missing"), "{missing}");
}

#[test]
fn alternatives_come_in_order() {
    let sub = |name: &str, text: &str| json!({"name": name, "deviceClassName": "gpu", "selectors": selector(text)});
    let list = json!([sub("huge", "device.attributes['d'].numa == 9"), sub("any", "true")]);
    let got = run(local(), &[claim("c", json!([{"name": "r", "firstAvailable": list}]), json!([]))], &[]);
    assert_eq!(got, Ok(vec![vec![("r/any".to_owned(), "g0".to_owned())]]));
}

#[test]
fn constraints_hold_among_devices() {
    let two = || json!([exactly("r", json!({"count": 2}))]);
    check(two(), json!([{"matchAttribute": "d/numa"}]), &[], Some(&["g0", "g1"]));
    check(two(), json!([{"distinctAttribute": "d/numa"}]), &[], Some(&["g0", "g2"]));
    check(two(), json!([{"matchAttribute": "d/driverVersion"}]), &[], None);
    check(two(), json!([{"matchAttribute": "d/missing"}]), &[], None);
    check(two(), json!([{"matchAttribute": "d/missing", "requests": ["other"]}]), &[], Some(&["g0", "g1"]));
}

#[test]
fn taints_keep_devices_unless_tolerated() {
    let devices = json!([{"name": "t", "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}]);
    let slices = || vec![slice("s", 1, 1, devices.clone(), json!({"nodeName": "a"}))];
    let run = |tolerations: Value| run(slices(), &[claim("c", json!([exactly("r", json!({"tolerations": tolerations}))]), json!([]))], &[]).is_ok();
    assert!(!run(json!([])));
    assert!(run(json!([{"key": "k", "operator": "Equal", "value": "v"}])));
    assert!(run(json!([{"operator": "Exists", "effect": "NoSchedule"}])));
    assert!(!run(json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}])));
}

#[test]
fn nodes_reach_what_slices_say() {
    let device = json!([{"name": "x"}]);
    let one = || [claim("c", json!([exactly("r", json!({}))]), json!([]))];
    let check = |generation: i64, count: i64, more: Value, expect: bool| {
        assert_eq!(run(vec![slice("s", generation, count, device.clone(), more.clone())], &one(), &[]).is_ok(), expect, "{more}");
    };
    let zone = |zone: &str| json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}});
    check(1, 1, json!({"nodeName": "a"}), true);
    check(1, 1, json!({"nodeName": "b"}), false);
    check(1, 1, json!({"allNodes": true}), true);
    check(1, 1, zone("z1"), true);
    check(1, 1, zone("z2"), false);
    // Half of a pool is none.
    check(1, 2, json!({"nodeName": "a"}), false);
    let old = slice("old", 1, 1, json!([{"name": "gone"}]), json!({"nodeName": "a"}));
    let new = slice("new", 2, 1, device.clone(), json!({"nodeName": "a"}));
    let got = run(vec![new, old], &one(), &[]).expect("found");
    assert_eq!(got[0][0].1, "x");
}

#[test]
fn partitions_share_counters() {
    let part = |name: &str, memory: &str| {
        json!({"name": name, "consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": memory}}}]})
    };
    let more = json!({"nodeName": "a", "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "10Gi"}}}]});
    let slices = || vec![slice("s", 1, 1, json!([part("whole", "10Gi"), part("half-0", "5Gi"), part("half-1", "5Gi")]), more.clone())];
    let claims = |count: i64| [claim("c", json!([exactly("r", json!({"count": count}))]), json!([]))];
    let names = |got: Vec<Devices>| got[0].iter().map(|(_, d)| d.clone()).collect::<Vec<_>>();
    assert_eq!(names(run(slices(), &claims(2), &[]).expect("halves")), ["half-0", "half-1"]);
    assert_eq!(names(run(slices(), &claims(1), &["half-1"]).expect("a half")), ["half-0"]);
    assert!(run(slices(), &claims(1), &["whole"]).is_err());
}

#[test]
fn allocations_say_where_and_how() {
    let needs = [ClaimNeeds::new(&classes, &claim("c", json!([exactly("r", json!({}))]), json!([]))).expect("needs")];
    let found = allocate(&needs, &Inventory::new(local()), &HashSet::new(), &node("a", "z1")).expect("found");
    let found = serde_json::to_value(&found[0]).expect("json");
    assert_eq!(found["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["a"]));
    let config = |source: &str, of: &str| json!({"source": source, "requests": ["r"], "opaque": {"driver": "d", "parameters": {"of": of}}});
    assert_eq!(found["devices"]["config"], json!([config("FromClass", "class"), config("FromClaim", "claim")]));
    let error = ClaimNeeds::new(&|_| None, &claim("c", json!([exactly("r", json!({}))]), json!([]))).err();
    assert_eq!(error.as_deref(), Some("request r: device class gpu does not exist"));
}

#[test]
fn the_ledger_bridges_writing_and_seeing() {
    let mut ledger = Ledger::default();
    let unallocated = claim("c", json!([]), json!([]));
    let result = json!({"devices": {"results": [{"driver": "d", "pool": "p", "device": "g0", "request": "r"}]}});
    ledger.add("c", serde_json::from_value(result.clone()).expect("allocation"));
    assert_eq!(ledger.taken(&[unallocated.clone()]).len(), 1);
    ledger.written("c");
    assert!(ledger.to_write("c").is_none() && ledger.holds("c"));
    ledger.remove("c");
    assert_eq!(ledger.taken(&[unallocated.clone()]).len(), 1, "what was written stays until it is seen");
    let mut seen = ResourceClaim::clone(&unallocated);
    seen.status = Some(serde_json::from_value(json!({"allocation": result})).expect("status"));
    assert_eq!(ledger.taken(&[Arc::new(seen)]).len(), 1);
    assert!(!ledger.holds("c"));
    ledger.add("gone", Default::default());
    ledger.taken(&[]);
    assert!(!ledger.holds("gone"), "a claim that is gone holds nothing");
}
