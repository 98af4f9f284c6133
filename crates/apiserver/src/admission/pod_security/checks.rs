//! The checks of the Pod Security Standards: which apply at a level and version, and what they found.

use super::policy::{Level, Standard};
use super::view::View;
use super::{baseline as b, restricted as r};

/// Why a pod violates a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In a few words, the same for every pod.
    pub reason: String,
    /// Who does what.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Self> {
        Some(Self { reason: reason.into(), detail: detail.into() })
    }
}

type Run = fn(&View<'_>) -> Option<Finding>;

/// A check: the level it belongs to, the minor version it came with, and for checks of the baseline the
/// version since which the restricted level has a stricter one instead.
struct Check(Level, u32, u32, Run);

const NEVER: u32 = u32::MAX;
/// Stands for `latest`: newer than every rule that is known.
const LATEST: u32 = NEVER - 1;

/// In the order in which findings are shown: by level, then by upstream's name of the check.
const CHECKS: &[Check] = &[
    Check(Level::Baseline, 0, NEVER, b::app_armor_profile),
    Check(Level::Baseline, 0, 22, b::capabilities),
    Check(Level::Baseline, 0, NEVER, b::host_namespaces),
    Check(Level::Baseline, 0, 0, b::host_path_volumes),
    Check(Level::Baseline, 0, NEVER, b::host_ports),
    Check(Level::Baseline, 34, NEVER, b::host_probes),
    Check(Level::Baseline, 0, NEVER, b::privileged),
    Check(Level::Baseline, 0, 35, b::proc_mount),
    Check(Level::Baseline, 0, NEVER, b::se_linux_options),
    Check(Level::Baseline, 0, 19, b::seccomp_profile),
    Check(Level::Baseline, 0, NEVER, b::sysctls),
    Check(Level::Baseline, 0, NEVER, b::windows_host_process),
    Check(Level::Restricted, 8, NEVER, r::allow_privilege_escalation),
    Check(Level::Restricted, 22, NEVER, r::capabilities),
    Check(Level::Restricted, 35, NEVER, r::proc_mount),
    Check(Level::Restricted, 0, NEVER, r::volumes),
    Check(Level::Restricted, 0, NEVER, r::run_as_non_root),
    Check(Level::Restricted, 23, NEVER, r::run_as_user),
    Check(Level::Restricted, 19, NEVER, r::seccomp_profile),
];

/// What a pod violates of a standard.
pub fn evaluate(standard: Standard, view: &View<'_>) -> Vec<Finding> {
    let minor = standard.version.unwrap_or(LATEST).min(LATEST);
    let applies = |c: &&Check| {
        let Check(level, since, replaced, _) = **c;
        let stricter = standard.level == Level::Restricted && level == Level::Baseline && minor >= replaced;
        level <= standard.level && minor >= since && !stricter
    };
    let view = View { containers: view.containers.clone(), minor, ..*view };
    CHECKS.iter().filter(applies).filter_map(|Check(_, _, _, run)| run(&view)).collect()
}

/// `host namespaces (hostPID=true), hostPort (…)`
pub fn details(findings: &[Finding]) -> String {
    let text = |f: &Finding| match f.detail.as_str() {
        "" => f.reason.clone(),
        detail => format!("{} ({detail})", f.reason),
    };
    findings.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// `host namespaces, hostPort`
pub fn reasons(findings: &[Finding]) -> String {
    findings.iter().map(|f| f.reason.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(level: Level, version: Option<u32>, spec: Value, want: &str) {
        let pod = json!({"metadata": {"annotations": spec["annotations"].clone()}, "spec": spec.clone()});
        let found = details(&evaluate(Standard { level, version }, &View::new(&pod)));
        assert_eq!(found, want, "{spec}");
    }

    fn container(context: Value) -> Value {
        json!({"containers": [{"name": "c", "securityContext": context}]})
    }

    #[test]
    fn baseline() {
        let table = [
            (container(json!({})), ""),
            (json!({"hostNetwork": true, "hostIPC": true}), "host namespaces (hostNetwork=true, hostIPC=true)"),
            (
                container(json!({"privileged": true})),
                "privileged (container \"c\" must not set securityContext.privileged=true)",
            ),
            (
                container(json!({"capabilities": {"add": ["SYS_TIME", "CHOWN", "BPF"]}})),
                "non-default capabilities (container \"c\" must not include \"BPF\", \"SYS_TIME\" in securityContext.capabilities.add)",
            ),
            (
                json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "hostPath": {}}]}),
                "hostPath volumes (volumes \"a\", \"b\")",
            ),
            (
                json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 443}, {"containerPort": 1}]}]}),
                "hostPort (container \"c\" uses hostPorts 443, 80)",
            ),
            (
                json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}]}),
                "probe or lifecycle host (container \"c\" uses probe or lifecycle hosts \"g\", \"h\")",
            ),
            (
                container(json!({"procMount": "Unmasked"})),
                "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                container(json!({"seLinuxOptions": {"type": "x", "user": "u"}})),
                "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": []}),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "a"}, {"name": "b"}]}}),
                "forbidden sysctls (a, b)",
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [{"name": "c", "securityContext": {"windowsOptions": {"hostProcess": true}}}]}),
                "hostProcess (pod and container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
            ),
            (
                json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}),
                "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")",
            ),
        ];
        for (spec, want) in table {
            check(Level::Baseline, None, spec, want);
        }
        let unmasked =
            json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]});
        check(Level::Baseline, None, unmasked.clone(), "");
        check(
            Level::Baseline,
            Some(34),
            unmasked,
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        );
        check(Level::Baseline, Some(33), json!({"containers": [{"livenessProbe": {"httpGet": {"host": "h"}}}]}), "");
        let annotated = json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}});
        check(
            Level::Baseline,
            Some(18),
            annotated.clone(),
            "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
        );
        check(Level::Baseline, None, annotated, "");
        check(Level::Privileged, None, json!({"hostPID": true}), "");
    }

    #[test]
    fn restricted() {
        let fine = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"}});
        let with = |field: &str, value: Value| {
            let mut context = fine.clone();
            context[field] = value;
            container(context)
        };
        check(Level::Restricted, None, container(fine.clone()), "");
        check(
            Level::Restricted,
            None,
            with("allowPrivilegeEscalation", Value::Null),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
        );
        check(
            Level::Restricted,
            None,
            with("capabilities", json!({"add": ["CHOWN", "NET_BIND_SERVICE"]})),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; \
             container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        );
        check(
            Level::Restricted,
            None,
            with("runAsNonRoot", json!(false)),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        );
        check(
            Level::Restricted,
            None,
            with("runAsNonRoot", Value::Null),
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
        );
        check(
            Level::Restricted,
            None,
            with("runAsUser", json!(0)),
            "runAsUser=0 (container \"c\" must not set runAsUser=0)",
        );
        check(Level::Restricted, Some(22), with("runAsUser", json!(0)), "");
        check(
            Level::Restricted,
            None,
            with("seccompProfile", Value::Null),
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        );
        check(
            Level::Restricted,
            None,
            json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "odd": {}}, {"name": "s", "secret": {}}]}),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"unknown\")",
        );
        let mut windows = container(json!({"runAsNonRoot": true}));
        windows["os"] = json!({"name": "windows"});
        check(Level::Restricted, None, windows, "");
    }
}
