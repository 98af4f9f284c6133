//! Pods of which one part is as large as it can be.

use super::*;

fn pod_list(list: &str, item: impl Fn(usize) -> String) -> Call {
    let before = format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i"}}],"{list}":["#);
    filled(PODS, &before, item, "]}}")
}

fn container_list(list: &str, item: impl Fn(usize) -> String) -> Call {
    let before = format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","{list}":["#);
    filled(PODS, &before, item, "]}]}}")
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case!("pod: containers", pod_list("initContainers", |i| format!(r#"{{"name":"c{i}","image":"i"}}"#))),
        case!("pod: empty containers", pod_list("initContainers", |_| "{}".into())),
        case!("pod: volumes", pod_list("volumes", |i| format!(r#"{{"name":"v{i}","emptyDir":{{}}}}"#))),
        case!("pod: volumes, one often", pod_list("volumes", |_| r#"{"name":"v","emptyDir":{}}"#.into())),
        case!("pod: tolerations", pod_list("tolerations", |i| format!(r#"{{"key":"k{i}","operator":"Exists"}}"#))),
        case!("pod: tolerations, one often", pod_list("tolerations", |_| r#"{"key":"k","operator":"Exists"}"#.into())),
        case!("pod: host aliases", pod_list("hostAliases", |i| format!(r#"{{"ip":"1.1.1.1","hostnames":["h{i}"]}}"#))),
        case!(
            "pod: spread constraints",
            pod_list("topologySpreadConstraints", |i| format!(
                r#"{{"maxSkew":1,"topologyKey":"k{i}","whenUnsatisfiable":"DoNotSchedule"}}"#
            ))
        ),
        case!("pod: readiness gates", pod_list("readinessGates", |i| format!(r#"{{"conditionType":"c{i}"}}"#))),
        case!("pod: scheduling gates", pod_list("schedulingGates", |i| format!(r#"{{"name":"g{i}"}}"#))),
        case!("pod: pull secrets", pod_list("imagePullSecrets", |i| format!(r#"{{"name":"s{i}"}}"#))),
        case!(
            "pod: resource claims",
            pod_list("resourceClaims", |i| format!(r#"{{"name":"s{i}","resourceClaimName":"x"}}"#))
        ),
        case!("pod: environment", container_list("env", |i| format!(r#"{{"name":"E{i}","value":"v"}}"#))),
        case!("pod: bad environment", container_list("env", |_| r#"{"name":"=","value":"v"}"#.into())),
        case!(
            "pod: ports",
            container_list("ports", |i| format!(r#"{{"containerPort":{},"name":"p{i}"}}"#, i % 65000 + 1))
        ),
        case!(
            "pod: host ports",
            container_list("ports", |i| format!(r#"{{"containerPort":1,"hostPort":{}}}"#, i % 65000 + 1))
        ),
        case!("pod: mounts", container_list("volumeMounts", |i| format!(r#"{{"name":"v","mountPath":"/m{i}"}}"#))),
        case!("pod: arguments", container_list("args", |i| format!("\"{i}\""))),
        case!("pod: resources", {
            let before =
                format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"#);
            filled(PODS, &before, |i| format!(r#""x.io/r{i}":"1""#), "}}}]}}")
        }),
        case!("pod: a long quantity", {
            let digits = "9".repeat(BODY - 256);
            call(
                "POST",
                PODS,
                JSON,
                format!(
                    r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"cpu":"{digits}"}}}}}}]}}}}"#
                ),
            )
        }),
        case!("pod: quantities of many digits", {
            let before =
                format!(r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"#);
            filled(PODS, &before, |i| format!(r#""x.io/r{i}":"0.{}1""#, "0".repeat(3000)), "}}}]}}")
        }),
        case!("pod: affinity terms", {
            let before = format!(
                r#"{{{POD},"spec":{{"containers":[{{"name":"c","image":"i"}}],"affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":["#
            );
            filled(PODS, &before, |_| r#"{"topologyKey":"k"}"#.into(), "]}}}}")
        }),
    ]
}
