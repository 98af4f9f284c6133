//! What flow schemas and priority levels may be.

use super::*;

fn check(strategy: &dyn Strategy, name: &str, spec: Value, want: &[&str]) {
    let ctx = Ctx { user: "u", groups: &[], now: Timestamp::UNIX_EPOCH, dry_run: false };
    let errors = strategy.validate(&ctx, &json!({"metadata": {"name": name}, "spec": spec}));
    let got: Vec<String> = errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    assert_eq!(got, want);
}

fn level(name: &str, spec: Value, want: &[&str]) {
    check(&PriorityLevelConfiguration, name, spec, want);
}

#[test]
fn what_a_cluster_needs_stays() {
    for name in ["exempt", "catch-all"] {
        check(&FlowSchema, name, mandatory::schema(name).expect("fixed"), &[]);
        level(name, mandatory::level(name).expect("fixed"), &[]);
    }
    let without = json!({"priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 1000});
    check(&FlowSchema, "other", without.clone(), &[]);
    check(
        &FlowSchema,
        "catch-all",
        without,
        &[
            "spec: Invalid value: {\"PriorityLevelConfiguration\":{\"Name\":\"catch-all\"},\"MatchingPrecedence\":1000,\"DistinguisherMethod\":null,\"Rules\":null}: spec of 'catch-all' must equal the fixed value",
        ],
    );
    level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 7, "lendablePercent": 3}}), &[]);
    level("exempt", json!({"type": "Exempt"}), &[]);
    level(
        "catch-all",
        json!({"type": "Exempt"}),
        &[
            "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
            "spec: Invalid value: {\"Type\":\"Exempt\",\"Limited\":null,\"Exempt\":null}: spec of 'catch-all' must equal the fixed value",
        ],
    );
    let limited = json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}});
    level(
        "exempt",
        json!({"type": "Exempt", "limited": limited}),
        &[
            "spec.limited: Forbidden: must be nil if the type is not Limited",
            "spec: Invalid value: {\"Type\":\"Exempt\",\"Limited\":{\"NominalConcurrencyShares\":0,\"LimitResponse\":{\"Type\":\"Reject\",\"Queuing\":null},\"LendablePercent\":null,\"BorrowingLimitPercent\":null},\"Exempt\":null}: spec of 'exempt' except the 'spec.exempt' field must equal the fixed value",
        ],
    );
}

#[test]
fn queues_are_chosen_by_a_hash() {
    let check = |queues: i64, hand: i64, want: &[&str]| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 1});
        let want: Vec<_> = want.iter().map(|w| format!("spec.limited.limitResponse.queuing.{w}")).collect();
        let want: Vec<_> = want.iter().map(String::as_str).collect();
        let spec = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        level("a", spec, &want);
    };
    check(64, 10, &[]);
    check(1024, 6, &[]);
    let bits = "should not be greater than 60";
    check(
        64,
        11,
        &[&format!("handSize: Invalid value: 11: required entropy bits of deckSize 64 and handSize 11 {bits}")],
    );
    check(10_000_001, 1, &["queues: Invalid value: 10000001: must not be greater than 10000000"]);
    check(
        -1,
        5,
        &[
            "queues: Invalid value: -1: must be positive",
            "handSize: Invalid value: 5: should not be greater than queues (-1)",
        ],
    );
    check(1, 0, &["handSize: Invalid value: 0: must be positive"]);
}

#[test]
fn what_is_exempt_has_defaults_if_it_is_there() {
    for (exempt, want) in
        [(Value::Null, Value::Null), (json!({}), json!({"nominalConcurrencyShares": 0, "lendablePercent": 0}))]
    {
        let mut obj = json!({"spec": {"type": "Exempt", "exempt": exempt}});
        PriorityLevelConfiguration.default(&mut obj);
        assert_eq!(obj.at("spec").at("exempt"), &want);
    }
}

#[test]
fn levels_are_of_one_type() {
    let wrong = json!({"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1,
        "limitResponse": {"type": "Reject", "queuing": {}}});
    level(
        "a",
        json!({"type": "Limited", "limited": wrong, "exempt": {}}),
        &[
            "spec.exempt: Forbidden: must be nil if the type is Limited",
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ],
    );
    level(
        "a",
        json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}),
        &[
            "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
        ],
    );
    level("a", json!({"type": "Limited"}), &["spec.limited: Required value: must not be empty when type is Limited"]);
}
