//! Which devices a container gets of a claim.

use super::*;

fn device(requests: &[&str], id: &str) -> PreparedDevice {
    let requests = requests.iter().map(|r| (*r).to_owned()).collect();
    PreparedDevice { requests, cdi_ids: vec![id.to_owned()], ..PreparedDevice::default() }
}

#[test]
fn a_container_gets_the_devices_of_its_requests() {
    let dir = tempfile::tempdir().expect("tempdir");
    let manager = Manager::open(dir.path());
    let devices = vec![device(&["a"], "v.com/x=1"), device(&["b/small"], "v.com/x=2"), device(&["a"], "v.com/x=1")];
    let claim = Claim { devices: [("d".to_owned(), devices)].into(), prepared: true, ..Claim::default() };
    manager.claims.lock().insert("u".to_owned(), claim);
    let check = |request: Option<&str>, expect: &[&str]| {
        assert_eq!(manager.cdi_devices(&[("u".to_owned(), request.map(str::to_owned))]), expect);
    };
    check(None, &["v.com/x=1", "v.com/x=2"]);
    check(Some("a"), &["v.com/x=1"]);
    check(Some("b"), &["v.com/x=2"]);
    check(Some("c"), &[]);
    let claims = manager.claims.lock().clone();
    manager.save(&claims).expect("save");
    assert_eq!(*Manager::open(dir.path()).claims.lock(), claims, "after a restart");
}

#[test]
fn a_claim_of_a_missing_driver_leaves_nothing_to_undo() {
    let dir = tempfile::tempdir().expect("tempdir");
    let manager = Manager::open(dir.path());
    let pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "1"}})).expect("pod");
    let claim = serde_json::from_value(serde_json::json!({"metadata": {"name": "c", "uid": "u"}, "spec": {}, "status": {
        "reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}],
        "allocation": {"devices": {"results": [{"driver": "d", "pool": "p", "device": "x", "request": "r"}]}}}}))
    .expect("claim");
    let refused = manager.enlist(&pod, "c", &claim).map(|(uid, _)| uid);
    assert_eq!(refused, Err("failed to prepare dynamic resources: DRA driver d is not registered".to_owned()));
    assert!(manager.pods().is_empty());
}
