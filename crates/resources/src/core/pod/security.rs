//! Security contexts of pods and containers, and what an operating system forbids.

use super::Scope;
use super::defaults::CONTAINER_LISTS;
use crate::field::{Errors, Fields, Path, go_struct};
use crate::names;
use crate::rules::{self, Check, Rule, each_of};
use serde_json::Value;
use std::collections::HashSet;

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";
const SYSCTL_FMT: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const CONTEXT: &str = "io.k8s.api.core.v1.SecurityContext";

/// What the contexts of pods and containers share, in the order of the errors.
const SECCOMP: Rule = ("seccompProfile", Check::By(seccomp));
const PROFILES: [Rule; 2] = [("windowsOptions", Check::By(windows)), ("appArmorProfile", Check::By(app_armor))];
const ID: Check = Check::Within(0, i32::MAX as i64, ID_RANGE);
const POD_IDS: &[Rule] =
    &[("fsGroup", ID), ("runAsUser", ID), ("runAsGroup", ID), ("supplementalGroups", Check::Each(group))];
const POD: &[Rule] = &[
    ("fsGroupChangePolicy", Check::Optional(&["Always", "OnRootMismatch"])),
    SECCOMP,
    PROFILES[0],
    PROFILES[1],
    ("supplementalGroupsPolicy", Check::Optional(&["Merge", "Strict"])),
    ("seLinuxChangePolicy", Check::Optional(&["Recursive"])),
];
const CONTAINER: &[Rule] =
    &[("runAsUser", ID), ("runAsGroup", ID), ("procMount", Check::Optional(&["Default", "Unmasked"]))];

/// Errors of a pod's security context.
pub fn pod(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let (spec, context) = (scope.spec, scope.spec.at("securityContext"));
    rules::check(errors, context, path, POD_IDS);
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.field("shareProcessNamespace"), true, text);
    }
    sysctls(errors, scope, context, &path.field("sysctls"));
    rules::check(errors, context, path, POD);
}

/// Errors of a container's security context.
pub fn container(errors: &mut Errors, scope: &Scope<'_>, context: &Value, path: &Path<'_>) {
    rules::check(errors, context, path, CONTAINER);
    if context.text("procMount") == "Unmasked" && scope.host_users() {
        errors.invalid(&path.field("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    rules::check(errors, context, path, &[SECCOMP]);
    escalation(errors, context, path);
    rules::check(errors, context, path, &PROFILES);
}

fn group(errors: &mut Errors, group: &Value, path: &Path<'_>) {
    if let Some(id) = group.as_i64().filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.invalid(path, id, ID_RANGE);
    }
}

/// Who is as mighty as can be cannot be kept from becoming mightier.
fn escalation(errors: &mut Errors, context: &Value, path: &Path<'_>) {
    if context.at("allowPrivilegeEscalation").as_bool() != Some(false) {
        return;
    }
    let admin = context.at("capabilities").texts("add").contains(&"CAP_SYS_ADMIN");
    for (mighty, what) in
        [(context.flag("privileged"), "`privileged` to true"), (admin, "`capabilities.Add` CAP_SYS_ADMIN")]
    {
        if mighty {
            let text = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
            errors.invalid_struct(path, CONTEXT, context, &text);
        }
    }
}

fn sysctls(errors: &mut Errors, scope: &Scope<'_>, context: &Value, path: &Path<'_>) {
    let mut seen = HashSet::new();
    for (i, sysctl) in context.list("sysctls").iter().enumerate() {
        let (path, name) = (path.index(i), sysctl.text("name"));
        let path = path.field("name");
        let segment = |s: &str| {
            let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            s.starts_with(edge) && s.ends_with(edge) && s.chars().all(|c| edge(c) || c == '-' || c == '_')
        };
        if name.is_empty() {
            errors.required(&path, "");
        } else if name.len() > names::SUBDOMAIN_MAX || !name.split(['.', '/']).all(segment) {
            errors.invalid(&path, name, SYSCTL_FMT);
        } else if seen.contains(name) {
            errors.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        if scope.spec.flag("hostNetwork") && dotted.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if scope.spec.flag("hostIPC") && is_ipc(&dotted) {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name);
    }
}

fn is_ipc(name: &str) -> bool {
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
}

fn seccomp(errors: &mut Errors, profile: &Value, path: &Path<'_>) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("type");
    match kind {
        "" => errors.required(&path.field("type"), "type is required when seccompProfile is set"),
        kind => errors.one_of(&path.field("type"), kind, &PROFILE_TYPES),
    }
    let path = path.field("localhostProfile");
    match (kind, profile.has("localhostProfile")) {
        ("Localhost", false) => errors.required(&path, "must be set when seccomp type is Localhost"),
        ("Localhost", true) => super::volume::descending_path(errors, profile.at("localhostProfile"), &path),
        (_, true) => {
            let fields = [("Type", kind.into()), ("LocalhostProfile", profile.at("localhostProfile").clone())];
            errors.invalid_printed(&path, || go_struct(&fields), "can only be set when seccomp type is Localhost");
        }
        (_, false) => {}
    }
}

fn app_armor(errors: &mut Errors, profile: &Value, path: &Path<'_>) {
    if profile.is_null() {
        return;
    }
    let (text, set) = (profile.text("localhostProfile"), profile.has("localhostProfile"));
    let path_of = path.field("localhostProfile");
    match profile.text("type") {
        "Localhost" => {
            if set && text.trim() != text {
                errors.invalid(&path_of, text, "must not be padded with whitespace");
            } else if text.is_empty() {
                errors.required(&path_of, "must be set when AppArmor type is Localhost");
            }
            if text.len() > 4095 {
                errors.too_long(&path_of, 4095);
            }
        }
        "RuntimeDefault" | "Unconfined" if set => {
            errors.invalid(&path_of, text, "can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&path.field("type"), "type is required when appArmorProfile is set"),
        other => errors.not_supported(&path.field("type"), other, &PROFILE_TYPES),
    }
}

fn windows(errors: &mut Errors, options: &Value, path: &Path<'_>) {
    const OPTIONS: &[Rule] = &[
        ("gmsaCredentialSpecName", Check::NamedIfThere(names::subdomain)),
        ("gmsaCredentialSpec", Check::NamedIfThere(credential_spec)),
        ("runAsUserName", Check::NamedIfThere(windows_user)),
    ];
    rules::check(errors, options, path, OPTIONS);
}

fn credential_spec(text: &str) -> Vec<String> {
    match text.len() {
        0 => vec!["gmsaCredentialSpec cannot be an empty string".into()],
        65_537.. => vec!["gmsaCredentialSpec size must be under 64 KiB".into()],
        _ => Vec::new(),
    }
}

/// A user of Windows, `[domain\\]user`.
fn windows_user(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.split('\\').collect();
    let whole = match name {
        "" => "cannot be an empty string",
        name if name.chars().any(char::is_control) => "cannot contain control characters",
        _ if parts.len() > 2 => "cannot contain more than one backslash",
        _ => "",
    };
    if !whole.is_empty() {
        return vec![format!("runAsUserName {whole}")];
    }
    let user = parts[parts.len() - 1];
    let domain = if parts.len() == 2 { domain_errors(parts[0]) } else { Vec::new() };
    let dots = !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ');
    let lines = [
        (user.is_empty(), "User cannot be empty"),
        (user.len() > 104, "User length must not be longer than 104 characters"),
        (dots, "User cannot contain only periods or spaces"),
        (user.contains(NOT_IN_USERS), "User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"),
    ];
    let told = domain.into_iter().chain(lines.into_iter().filter(|(wrong, _)| *wrong).map(|(_, text)| text));
    told.map(|text| format!("runAsUserName's {text}")).collect()
}

const NOT_IN_USERS: [char; 16] = ['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']'];
const NOT_IN_NET_BIOS: [char; 10] = ['\\', '/', ':', '*', '?', '"', '<', '>', '|', '.'];

fn domain_errors(domain: &str) -> Vec<&'static str> {
    let net_bios = (1..=15).contains(&domain.len()) && !domain.contains(NOT_IN_NET_BIOS);
    let part = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let lines = [
        (domain.len() >= 256, "Domain length must be under 256 characters"),
        (!net_bios && !domain.split('.').all(part), "Domain doesn't match the NetBios nor the DNS format"),
    ];
    lines.into_iter().filter(|(wrong, _)| *wrong).map(|(_, text)| text).collect()
}

/// Errors of host-process containers (Windows): all of a pod's are such, or none, and such a pod is on the host's
/// network.
pub fn host_process(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let flag = |context: &Value| context.at("windowsOptions").at("hostProcess").as_bool();
    let pod = flag(spec.at("securityContext"));
    let (mut count, mut all) = (0, 0);
    each_context(spec, path, |context, path| {
        let own = flag(context);
        if let Some((pod, own)) = pod.zip(own).filter(|(pod, own)| pod != own) {
            let text = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&path.field("windowsOptions.hostProcess"), own, &text);
        }
        all += 1;
        count += usize::from(own.or(pod) == Some(true));
    });
    if count == 0 {
        return;
    }
    if count != all {
        let text = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", text);
    }
    if !spec.flag("hostNetwork") {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.field("hostNetwork"), false, text);
    }
}

/// Errors of fields that the pod's operating system does not have.
pub fn operating_system(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let absent: (&[&str], &[&str], &str) = match spec.at("os").text("name") {
        _ if !spec.has("os") => return,
        "" => return errors.required(&path.field("os.name"), ""),
        "linux" => {
            (&["securityContext.windowsOptions"], &["windowsOptions"], "windows options cannot be set for a linux pod")
        }
        "windows" => (&NOT_IN_WINDOWS_PODS, &NOT_IN_WINDOWS_CONTAINERS, "cannot be set for a windows pod"),
        other => return errors.not_supported(&path.field("os"), other, &["linux", "windows"]),
    };
    let (of_pod, of_containers, text) = absent;
    for field in of_pod {
        let value = match field.strip_prefix("securityContext.") {
            Some(name) => spec.at("securityContext").at(name),
            None => spec.at(field),
        };
        if !value.is_null() && value.as_bool() != Some(false) {
            errors.forbidden(&path.field(field), text);
        }
    }
    each_context(spec, path, |context, path| {
        for field in of_containers.iter().filter(|field| context.has(field)) {
            errors.forbidden(&path.field(field), text);
        }
    });
}

/// What pods on Windows do not have, in the order of the errors; names without a dot are the spec's own.
const NOT_IN_WINDOWS_PODS: [&str; 15] = [
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];
const NOT_IN_WINDOWS_CONTAINERS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Visits the security contexts of all containers, absent ones too.
fn each_context(spec: &Value, path: &Path<'_>, mut visit: impl FnMut(&Value, &Path<'_>)) {
    each_of(spec, &CONTAINER_LISTS, path, |c, path| visit(c.at("securityContext"), &path.field("securityContext")));
}
