//! Allocation of claims from slices, as drivers and users write them.

use super::allocator::{Limits, Refused, allocate};
use super::inventory::Inventory;
use super::needs::ClaimNeeds;
use super::usage::Usage;
use api::k8s::core::v1::Node;
use api::k8s::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

fn in_use(devices: &[&str]) -> AllocationResult {
    let result = |device: &&str| json!({"driver": "d", "pool": "p", "device": device, "request": "r"});
    let results: Vec<Value> = devices.iter().map(result).collect();
    serde_json::from_value(json!({"devices": {"results": results}})).expect("allocation")
}

fn search(
    slices: Vec<Arc<ResourceSlice>>,
    needs: &[ClaimNeeds],
    taken: &[AllocationResult],
) -> Result<Vec<AllocationResult>, Refused> {
    let inventory = Inventory::new(slices);
    let usage = Usage::new(&inventory, taken);
    allocate(&needs.iter().collect::<Vec<_>>(), &inventory, &usage, &node("a", "z1"), Limits::new(Instant::now()))
}

/// Requests and devices of each claim's allocation.
fn run(
    slices: Vec<Arc<ResourceSlice>>,
    claims: &[Arc<ResourceClaim>],
    taken: &[&str],
) -> Result<Vec<Devices>, Refused> {
    let needs: Result<Vec<_>, _> = claims.iter().map(|c| ClaimNeeds::new(&classes, c)).collect();
    let found = search(slices, &needs.map_err(Refused::Error)?, &[in_use(taken)])?;
    let devices = |a: AllocationResult| {
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
    check(
        json!([exactly("r", json!({"adminAccess": true, "allocationMode": "All"}))]),
        none(),
        &["g1"],
        Some(&["g0", "g1", "g2"]),
    );
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
    let run = |tolerations: Value| {
        run(slices(), &[claim("c", json!([exactly("r", json!({"tolerations": tolerations}))]), json!([]))], &[]).is_ok()
    };
    assert!(!run(json!([])));
    assert!(run(json!([{"key": "k", "operator": "Equal", "value": "v"}])));
    assert!(run(json!([{"operator": "Exists", "effect": "NoSchedule"}])));
    assert!(!run(json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}])));
    assert!(run(json!([{"operator": "Equal", "value": "v"}])));
    assert!(!run(json!([{"key": "k", "operator": "Later", "value": "v"}])));
}

#[test]
fn nodes_reach_what_slices_say() {
    let device = json!([{"name": "x"}]);
    let one = || [claim("c", json!([exactly("r", json!({}))]), json!([]))];
    let check = |generation: i64, count: i64, more: Value, expect: bool| {
        assert_eq!(
            run(vec![slice("s", generation, count, device.clone(), more.clone())], &one(), &[]).is_ok(),
            expect,
            "{more}"
        );
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
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": memory}}}]});
    let more =
        json!({"nodeName": "a", "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "10Gi"}}}]});
    let slices = || {
        vec![slice(
            "s",
            1,
            1,
            json!([part("whole", "10Gi"), part("half-0", "5Gi"), part("half-1", "5Gi")]),
            more.clone(),
        )]
    };
    let claims = |count: i64| [claim("c", json!([exactly("r", json!({"count": count}))]), json!([]))];
    let names = |got: Vec<Devices>| got[0].iter().map(|(_, d)| d.clone()).collect::<Vec<_>>();
    assert_eq!(names(run(slices(), &claims(2), &[]).expect("halves")), ["half-0", "half-1"]);
    assert_eq!(names(run(slices(), &claims(1), &["half-1"]).expect("a half")), ["half-0"]);
    assert!(run(slices(), &claims(1), &["whole"]).is_err());
}

#[test]
fn allocations_say_where_and_how() {
    let needs = [ClaimNeeds::new(&classes, &claim("c", json!([exactly("r", json!({}))]), json!([]))).expect("needs")];
    let found = search(local(), &needs, &[]).expect("found");
    let found = serde_json::to_value(&found[0]).expect("json");
    assert_eq!(found["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["a"]));
    let config = |source: &str, of: &str| json!({"source": source, "requests": ["r"], "opaque": {"driver": "d", "parameters": {"of": of}}});
    assert_eq!(found["devices"]["config"], json!([config("FromClass", "class"), config("FromClaim", "claim")]));
    let error = ClaimNeeds::new(&|_| None, &claim("c", json!([exactly("r", json!({}))]), json!([]))).err();
    assert_eq!(error.as_deref(), Some("request r: device class gpu does not exist"));
}

/// So many devices of one kind.
fn many(count: usize) -> Vec<Arc<ResourceSlice>> {
    let devices: Vec<Value> = (0..count).map(|at| json!({"name": format!("g{at:02}")})).collect();
    vec![slice("s", 1, 1, json!(devices), json!({"nodeName": "a"}))]
}

#[test]
fn searches_end_in_good_time() {
    let check = |count: usize, requests: Value, expect: &str| {
        let error = match run(many(count), &[claim("c", requests, json!([]))], &[]) {
            Err(Refused::NotNow(why) | Refused::Error(why)) => why,
            Ok(found) => panic!("{found:?}"),
        };
        assert_eq!(error, expect);
    };
    let exactly = |name: &str, count: usize| exactly(name, json!({"count": count}));
    // Too few devices: without a look at their subsets.
    check(30, json!([exactly("r", 32)]), "cannot allocate all claims");
    // More than a claim can have, at least.
    let limit = "claim n/c: number of requested devices 40 exceeds the claim limit of 32";
    check(64, json!([exactly("a", 20), exactly("b", 20)]), limit);
    let large = json!({"name": "b", "firstAvailable": [{"name": "s", "deviceClassName": "gpu", "count": 20}]});
    check(64, json!([exactly("a", 20), large]), limit);
    // A second request that nothing serves.
    let never = json!({"name": "b", "exactly": {"deviceClassName": "gpu", "selectors": selector("false")}});
    check(40, json!([exactly("a", 20), never]), "node a: timed out trying to allocate devices");
}

#[test]
fn late_searches_are_short_and_then_there_are_none() {
    let needs = |requests: Value| ClaimNeeds::new(&classes, &claim("c", requests, json!([]))).expect("needs");
    let easy = needs(json!([exactly("r", json!({}))]));
    // 16 of 400 devices, then one that is not there: 4,000 steps to look at the devices once more.
    let never = json!({"name": "b", "exactly": {"deviceClassName": "gpu", "selectors": selector("false")}});
    let hard = needs(json!([exactly("a", json!({"count": 16})), never]));
    let inventory = Inventory::new(many(400));
    let check = |needs: &ClaimNeeds, seconds: u64, expect: bool| {
        let began = Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine runs that long");
        let found = allocate(&[needs], &inventory, &Usage::default(), &node("a", "z1"), Limits::new(began)).map(drop);
        let late = Err(Refused::Error("node a: timed out trying to allocate devices".into()));
        assert_eq!(found, if expect { Ok(()) } else { late }, "after {seconds} s");
    };
    check(&easy, 0, true);
    check(&easy, 1, true);
    check(&easy, 2, false);
    check(&hard, 1, false);
}

#[test]
fn devices_given_several_times_have_so_much() {
    let policy = json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"}});
    let device = json!([{"name": "g", "allowMultipleAllocations": true,
        "capacity": {"memory": {"value": "4Gi", "requestPolicy": policy}}}]);
    let slices = || vec![slice("s", 1, 1, device.clone(), json!({"nodeName": "a"}))];
    let wants = |amount: &str| {
        let request = exactly("r", json!({"capacity": {"requests": {"memory": amount}}}));
        ClaimNeeds::new(&classes, &claim("c", json!([request]), json!([]))).expect("needs")
    };
    let first = search(slices(), &[wants("2500Mi")], &[]).expect("free");
    let result = &serde_json::to_value(&first[0]).expect("json")["devices"]["results"][0];
    assert_eq!(result["consumedCapacity"], json!({"memory": "3Gi"}));
    assert!(result["shareID"].as_str().is_some_and(|id| id.len() == 36));
    assert!(search(slices(), &[wants("1Gi")], &first).is_ok());
    assert_eq!(search(slices(), &[wants("2Gi")], &first), Err(Refused::NotNow("cannot allocate all claims".into())));
    assert!(search(slices(), &[wants("3Gi"), wants("1Gi")], &[]).is_ok());
    assert!(search(slices(), &[wants("3Gi"), wants("2Gi")], &[]).is_err());
    assert!(search(slices(), &[wants("1Gi")], &[in_use(&["g"])]).is_err(), "somebody has it alone");
}

#[test]
fn devices_with_binding_conditions_come_last() {
    let conditional = json!([{"name": "x", "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]}]);
    let mut later = ResourceSlice::clone(&slice("t", 1, 1, json!([{"name": "y"}]), json!({"nodeName": "a"})));
    later.spec.pool.name = "q".into();
    let slices = || vec![slice("s", 1, 1, conditional.clone(), json!({"nodeName": "a"})), Arc::new(later.clone())];
    let found = |count: usize| {
        let claim = claim("c", json!([exactly("r", json!({"count": count}))]), json!([]));
        let needs = [ClaimNeeds::new(&classes, &claim).expect("needs")];
        serde_json::to_value(&search(slices(), &needs, &[]).expect("found")[0]).expect("json")
    };
    assert_eq!(found(1)["devices"]["results"][0]["device"], "y");
    assert_eq!(found(2)["devices"]["results"][1]["bindingConditions"], json!(["Attached"]));
    assert_eq!(found(2)["devices"]["results"][1]["bindingFailureConditions"], json!(["Broken"]));
}

#[test]
fn pools_that_contradict_themselves_are_not_used() {
    let check = |devices: Value| {
        let slices = vec![slice("s", 1, 1, devices, json!({"nodeName": "a"}))];
        let got = run(slices, &[claim("c", json!([exactly("r", json!({}))]), json!([]))], &[]);
        assert_eq!(got, Err(Refused::NotNow("invalid resource pools were encountered".into())));
    };
    check(json!([{"name": "x"}, {"name": "x"}]));
    check(json!([{"name": "x", "consumesCounters": [{"counterSet": "none", "counters": {"m": {"value": "1"}}}]}]));
}

#[test]
fn all_devices_are_had_or_the_claim_is_at_fault() {
    let all = |constraints: Value| claim("c", json!([exactly("r", json!({"allocationMode": "All"}))]), constraints);
    let error = |slices: Vec<Arc<ResourceSlice>>, constraints: Value| match run(slices, &[all(constraints)], &[]) {
        Err(Refused::Error(why)) => why,
        other => panic!("{other:?}"),
    };
    let updated = "claim n/c, request r: asks for all devices, but resource pool d/p is currently being updated";
    assert_eq!(error(vec![slice("s", 1, 2, gpus(), json!({"nodeName": "a"}))], json!([])), updated);
    let constrained =
        "claim n/c, request r: cannot add device d/p/g2 because a claim constraint would not be satisfied";
    assert_eq!(error(local(), json!([{"matchAttribute": "d/numa"}])), constrained);
}

#[test]
fn configurations_of_a_class_come_once() {
    let requests = json!([exactly("a", json!({})), exactly("b", json!({}))]);
    let needs = [ClaimNeeds::new(&classes, &claim("c", requests, json!([]))).expect("needs")];
    let found = serde_json::to_value(&search(local(), &needs, &[]).expect("found")[0]).expect("json");
    let of_class = json!({"driver": "d", "parameters": {"of": "class"}});
    let config = json!([{"source": "FromClass", "requests": ["a", "b"], "opaque": of_class}]);
    assert_eq!(found["devices"]["config"], config);
}
