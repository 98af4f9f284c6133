//! Security contexts of pods and containers, and what an operating system forbids.

use super::Scope;
use super::defaults::CONTAINER_LISTS;
use crate::field::{Errors, Fields, Path, go_struct};
use crate::names;
use serde_json::Value;

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";
const SYSCTL_FMT: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const CONTEXT_FIELDS: [(&str, &str); 12] = [
    ("Capabilities", "capabilities"),
    ("Privileged", "privileged"),
    ("SELinuxOptions", "seLinuxOptions"),
    ("WindowsOptions", "windowsOptions"),
    ("RunAsUser", "runAsUser"),
    ("RunAsGroup", "runAsGroup"),
    ("RunAsNonRoot", "runAsNonRoot"),
    ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
    ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
    ("ProcMount", "procMount"),
    ("SeccompProfile", "seccompProfile"),
    ("AppArmorProfile", "appArmorProfile"),
];

/// Errors of a pod's security context.
pub fn pod(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let (spec, context) = (scope.spec, scope.spec.at("securityContext"));
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errors, context.int(field), &path.field(field));
    }
    let groups = path.field("supplementalGroups");
    for (i, group) in context.list("supplementalGroups").iter().enumerate() {
        id(errors, group.as_i64(), &groups.index(i));
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.field("shareProcessNamespace"), true, text);
    }
    sysctls(errors, scope, context, &path.field("sysctls"));
    let optional = |errors: &mut Errors, field: &str, values: &[&str]| {
        if context.has(field) {
            errors.supported(&path.field(field), context.text(field), values);
        }
    };
    optional(errors, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(errors, context.at("seccompProfile"), &path.field("seccompProfile"));
    windows(errors, context.at("windowsOptions"), &path.field("windowsOptions"));
    app_armor(errors, context.at("appArmorProfile"), &path.field("appArmorProfile"));
    optional(errors, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    optional(errors, "seLinuxChangePolicy", if scope.is_pod { &["Recursive"] } else { &["MountOption", "Recursive"] });
}

/// Errors of a container's security context.
pub fn container(errors: &mut Errors, scope: &Scope<'_>, context: &Value, path: &Path<'_>) {
    if context.is_null() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(errors, context.int(field), &path.field(field));
    }
    if context.has("procMount") {
        let mount = context.text("procMount");
        errors.supported(&path.field("procMount"), mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && scope.host_users() {
            errors.invalid(&path.field("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errors, context.at("seccompProfile"), &path.field("seccompProfile"));
    if context.at("allowPrivilegeEscalation").as_bool() == Some(false) {
        let printed = || go_struct(&CONTEXT_FIELDS.map(|(go, json)| (go, context.at(json).clone())));
        if context.flag("privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid_printed(path, &printed(), text);
        }
        if context.at("capabilities").texts("add").contains(&"CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid_printed(path, &printed(), text);
        }
    }
    windows(errors, context.at("windowsOptions"), &path.field("windowsOptions"));
    app_armor(errors, context.at("appArmorProfile"), &path.field("appArmorProfile"));
}

fn id(errors: &mut Errors, id: Option<i64>, path: &Path<'_>) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.invalid(path, id, ID_RANGE);
    }
}

fn sysctls(errors: &mut Errors, scope: &Scope<'_>, context: &Value, path: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
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
        } else if seen.contains(&name) {
            errors.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        if scope.spec.flag("hostNetwork") && dotted.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if scope.spec.flag("hostIPC") && is_ipc(&dotted) {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
        seen.push(name);
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
        kind => errors.one_of(&path.field("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let path = path.field("localhostProfile");
    match (kind, profile.has("localhostProfile")) {
        ("Localhost", false) => errors.required(&path, "must be set when seccomp type is Localhost"),
        ("Localhost", true) => super::volume::descending_path(errors, profile.text("localhostProfile"), &path),
        (_, true) => {
            let fields = [("Type", kind.into()), ("LocalhostProfile", profile.at("localhostProfile").clone())];
            errors.invalid_printed(&path, &go_struct(&fields), "can only be set when seccomp type is Localhost");
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
        other => errors.not_supported(&path.field("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

fn windows(errors: &mut Errors, options: &Value, path: &Path<'_>) {
    if options.has("gmsaCredentialSpecName") {
        let name = options.text("gmsaCredentialSpecName");
        errors.invalid_each(&path.field("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name, false));
    }
    if options.has("gmsaCredentialSpec") {
        let (text, path) = (options.text("gmsaCredentialSpec"), path.field("gmsaCredentialSpec"));
        match text.len() {
            0 => errors.invalid(&path, text, "gmsaCredentialSpec cannot be an empty string"),
            65_537.. => errors.invalid(&path, text, "gmsaCredentialSpec size must be under 64 KiB"),
            _ => {}
        }
    }
    if options.has("runAsUserName") {
        let name = options.text("runAsUserName");
        for text in windows_user(name) {
            errors.invalid(&path.field("runAsUserName"), name, text);
        }
    }
}

fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(char::is_control) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let net_bios =
        |d: &str| (1..=15).contains(&d.len()) && !d.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|', '.']);
    let dns = |d: &str| d.split('.').all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    let mut out = Vec::new();
    let mut when = |bad: bool, text| {
        if bad {
            out.push(text)
        }
    };
    when(domain.is_some_and(|d| d.len() >= 256), "runAsUserName's Domain length must be under 256 characters");
    when(
        domain.is_some_and(|d| !net_bios(d) && !dns(d)),
        "runAsUserName's Domain doesn't match the NetBios nor the DNS format",
    );
    when(user.is_empty(), "runAsUserName's User cannot be empty");
    when(user.len() > 104, "runAsUserName's User length must not be longer than 104 characters");
    when(
        !user.is_empty() && user.chars().all(|c| c == '.' || c == ' '),
        "runAsUserName's User cannot contain only periods or spaces",
    );
    when(
        user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']),
        "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
    );
    out
}

/// Errors of host-process containers (Windows).
pub fn host_process(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let flag = |context: &Value| context.at("windowsOptions").at("hostProcess").as_bool();
    let pod = flag(spec.at("securityContext"));
    let (mut count, mut all) = (0, 0);
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (i, c) in spec.list(list).iter().enumerate() {
            all += 1;
            let own = flag(c.at("securityContext"));
            if let Some((pod, own)) = pod.zip(own).filter(|(pod, own)| pod != own) {
                let text = format!("pod hostProcess value must be identical if both are specified, was {pod}");
                errors.invalid(&list_path.index(i).field("securityContext.windowsOptions.hostProcess"), own, &text);
            }
            count += usize::from(own.or(pod) == Some(true));
        }
    }
    if count > 0 && count != all {
        errors.invalid(
            path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if count > 0 && !spec.flag("hostNetwork") {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.field("hostNetwork"), false, text);
    }
}

/// Errors of fields that the pod's operating system does not have.
pub fn operating_system(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    match spec.at("os").text("name") {
        "" => errors.required(&path.field("os.name"), ""),
        "linux" => linux(errors, spec, path),
        "windows" => windows_pod(errors, spec, path),
        other => errors.not_supported(&path.field("os"), other, &["linux", "windows"]),
    }
}

fn linux(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let text = "windows options cannot be set for a linux pod";
    if spec.at("securityContext").has("windowsOptions") {
        errors.forbidden(&path.field("securityContext.windowsOptions"), text);
    }
    each_context(spec, path, |context, path| {
        if context.has("windowsOptions") {
            errors.forbidden(&path.field("windowsOptions"), text);
        }
    });
}

fn windows_pod(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    // in upstream's order; names without a dot are the spec's own
    let fields = [
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
    for field in fields {
        let value = match field.strip_prefix("securityContext.") {
            Some(name) => spec.at("securityContext").at(name),
            None => spec.at(field),
        };
        if !value.is_null() && value.as_bool() != Some(false) {
            errors.forbidden(&path.field(field), NOT_ON_WINDOWS);
        }
    }
    each_context(spec, path, |context, path| {
        for field in [
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
        ] {
            if context.has(field) {
                errors.forbidden(&path.field(field), NOT_ON_WINDOWS);
            }
        }
    });
}

fn each_context(spec: &Value, path: &Path<'_>, mut visit: impl FnMut(&Value, &Path<'_>)) {
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (i, c) in spec.list(list).iter().enumerate() {
            visit(c.at("securityContext"), &list_path.index(i).field("securityContext"));
        }
    }
}
