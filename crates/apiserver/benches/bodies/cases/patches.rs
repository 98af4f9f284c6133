//! Patches of every type.

use super::*;

const POD_LIVE: &str = "/api/v1/namespaces/default/pods/live?dryRun=All";
const APPLIED: &str = "/api/v1/namespaces/default/configmaps/applied?fieldManager=m&dryRun=All";
const APPLIED_POD: &str = "/api/v1/namespaces/default/pods/applied?fieldManager=m&dryRun=All";

/// As many operations as upstream allows in one patch.
fn operations(item: impl Fn(usize) -> String) -> Call {
    call("PATCH", LIVE, JSON_PATCH, format!("[{}]", (0..10_000).map(item).collect::<Vec<_>>().join(",")))
}

/// A patch in which one thing comes as often as it can.
fn patch(path: &str, kind: &'static str, before: &str, item: impl Fn(usize) -> String, after: &str) -> Call {
    call("PATCH", path, kind, format!("{before}{}{after}", repeat(BODY - 256, item)))
}

fn keys(kind: &'static str, item: impl Fn(usize) -> String) -> Call {
    patch(LIVE, kind, r#"{"data":{"#, item, "}}")
}

fn applied_list(list: &str, item: impl Fn(usize) -> String) -> Call {
    let pod = POD.replace("\"p\"", "\"applied\"");
    let before = format!(r#"{{{pod},"spec":{{"containers":[{{"name":"c","image":"i","{list}":["#);
    patch(APPLIED_POD, APPLY, &before, item, "]}]}}")
}

fn applied_keys(path: &str, name: &str, size: usize, item: impl Fn(usize) -> String) -> Call {
    let head = CONFIG_MAP.replace("\"c\"", &format!("\"{name}\""));
    call("PATCH", path, APPLY, format!(r#"{{{head},"data":{{{}}}}}"#, repeat(size, item)))
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case!(
            "json patch: 10,000 additions",
            operations(|i| format!(r#"{{"op":"add","path":"/data/x{i}","value":"v"}}"#))
        ),
        case!("json patch: 10,000 removals", operations(|i| format!(r#"{{"op":"remove","path":"/data/k{i:06}"}}"#))),
        case!(
            "json patch: 10,000 tests of everything",
            operations(|_| r#"{"op":"test","path":"/data","value":{}}"#.into())
        ),
        case!(
            "json patch: 10,000 copies",
            operations(|_| r#"{"op":"copy","from":"/data/k000001","path":"/data/z"}"#.into())
        ),
        case!(
            "json patch: copies of everything",
            operations(|_| r#"{"op":"copy","from":"/data","path":"/metadata/annotations"}"#.into())
        ),
        case!(
            "json patch: 10,000 moves",
            operations(|i| {
                let (from, to) = if i % 2 == 0 { ("/data", "/x") } else { ("/x", "/data") };
                format!(r#"{{"op":"move","from":"{from}","path":"{to}"}}"#)
            })
        ),
        case!("json patch: 100,000 operations", {
            let all = repeat_all(BODY, |_| r#"{"op":"remove","path":"/a"}"#.into());
            call("PATCH", LIVE, JSON_PATCH, format!("[{all}]"))
        }),
        case!("json patch: deep paths", {
            let path = "/a".repeat(BODY / 2 - 64);
            call("PATCH", LIVE, JSON_PATCH, format!(r#"[{{"op":"add","path":"{path}","value":1}}]"#))
        }),
        case!("merge patch: keys", keys(MERGE_PATCH, |i| format!(r#""k{i:06}":"""#))),
        case!("merge patch: nulls", keys(MERGE_PATCH, |i| format!(r#""k{i:06}":null"#))),
        case!("merge patch: one key of a large object", call("PATCH", LIVE, MERGE_PATCH, r#"{"data":{"one":"v"}}"#)),
        case!("strategic: keys", keys(STRATEGIC, |i| format!(r#""k{i:06}":"""#))),
        case!(
            "strategic: retain keys",
            patch(LIVE, STRATEGIC, r#"{"data":{"$retainKeys":["#, |i| format!(r#""k{i:06}""#), "]}}")
        ),
        case!("strategic: merge keys", {
            let [tolerations, volumes] =
                ["key", "name"].map(|key| repeat(BODY / 2, |i| format!(r#"{{"{key}":"k{i}"}}"#)));
            call(
                "PATCH",
                POD_LIVE,
                STRATEGIC,
                format!(r#"{{"spec":{{"tolerations":[{tolerations}],"volumes":[{volumes}]}}}}"#),
            )
        }),
        case!(
            "strategic: deletions",
            patch(
                POD_LIVE,
                STRATEGIC,
                r#"{"spec":{"containers":["#,
                |i| format!(r#"{{"$patch":"delete","name":"k{i}"}}"#),
                "]}}"
            )
        ),
        case!("strategic: order", {
            let half = || repeat(BODY / 2 - 64, |i| format!(r#"{{"name":"k{i}"}}"#));
            let lists = format!(r#""$setElementOrder/volumes":[{}],"volumes":[{}]"#, half(), half());
            call("PATCH", POD_LIVE, STRATEGIC, format!(r#"{{"spec":{{{lists}}}}}"#))
        }),
        case!("strategic: deletions from a list", {
            let before = r#"{"metadata":{"finalizers":["a/b"],"$deleteFromPrimitiveList/finalizers":["#;
            patch(POD_LIVE, STRATEGIC, before, |i| format!(r#""k{i}""#), "]}}")
        }),
        case!("apply: keys", applied_keys(APPLIED, "applied", BODY, |i| format!(r#""k{i:06}":"""#))),
        case!("apply: conflicts", {
            applied_keys(&LIVE.replace("dryRun", "fieldManager=m&dryRun"), "live", 600 << 10, |i| {
                format!(r#""k{i:06}":"x""#)
            })
        }),
        case!("apply: a list by key", applied_list("env", |i| format!(r#"{{"name":"E{i}"}}"#))),
        case!("apply: a list by two keys", applied_list("ports", |i| format!(r#"{{"containerPort":{}}}"#, i + 1))),
        case!("apply: one element often", applied_list("env", |_| r#"{"name":"E"}"#.into())),
        case!("apply: a set", {
            let before = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"applied","finalizers":["#;
            patch(APPLIED_POD, APPLY, before, |i| format!(r#""x/{i}""#), "]}}")
        }),
        case!(
            "apply: nested",
            call("PATCH", APPLIED, APPLY, format!("{}1{}", "{\"a\":".repeat(BODY / 6), "}".repeat(BODY / 6)))
        ),
    ]
}
