//! Validation of a pod's spec, in a pod or a template.

use super::defaults::CONTAINER_LISTS;
use super::{affinity, container, security, volume};
use crate::core::quantities;
use crate::field::{Errors, Fields, Path, go_struct};
use crate::{metadata, names};
use serde_json::Value;

/// What the parts of a spec need to know of the rest.
pub struct Scope<'a> {
    /// The whole spec.
    pub spec: &'a Value,
    /// Volumes without errors.
    pub volumes: Vec<&'a Value>,
    /// Names of resource claims.
    pub claims: Vec<&'a str>,
    /// Grace period.
    pub grace: Option<i64>,
    /// Whether this is a pod's spec, not a template's.
    pub is_pod: bool,
}

impl Scope<'_> {
    /// Whether the pod shares the host's user namespace.
    pub fn host_users(&self) -> bool {
        self.spec.at("hostUsers").as_bool() != Some(false)
    }
}

/// Errors of a spec. `meta` is the pod's metadata, `Null` for a template.
pub fn pod_spec(errors: &mut Errors, spec: &Value, meta: &Value, is_pod: bool, path: &Path<'_>) {
    if !spec.has("terminationGracePeriodSeconds") {
        errors.required(&path.field("terminationGracePeriodSeconds"), "");
    }
    let volumes = volume::volumes(errors, spec, meta, is_pod, &path.field("volumes"));
    let mut claims: Vec<&str> = spec.list("resourceClaims").iter().map(|c| c.text("name")).collect();
    claims.sort_unstable();
    let grace = spec.int("terminationGracePeriodSeconds");
    let scope = &Scope { spec, volumes, claims, grace, is_pod };
    resource_claims(errors, spec, &path.field("resourceClaims"));
    container::containers(errors, scope, &path.field("containers"));
    container::init_containers(errors, scope, &path.field("initContainers"));
    container::ephemeral_containers(errors, scope, &path.field("ephemeralContainers"));
    pod_resources(errors, spec, &path.field("resources"));
    host_network_ports(errors, scope, &path.field("containers"));
    choices(errors, spec, path);
    metadata::labels(errors, spec.at("nodeSelector"), &path.field("nodeSelector"));
    security::pod(errors, scope, &path.field("securityContext"));
    affinity::affinity(errors, spec.at("affinity"), &path.field("affinity"));
    dns_config(errors, spec, &path.field("dnsConfig"));
    gates(errors, spec, path);
    let spread = spec.list("topologySpreadConstraints");
    affinity::topology_spread(errors, spread, &path.field("topologySpreadConstraints"));
    security::host_process(errors, spec, path);
    host_users(errors, scope, path);
    hostname_override(errors, spec, path);
    names_and_limits(errors, spec, path);
    if spec.has("os") {
        security::operating_system(errors, spec, path);
    }
    file_volumes(errors, spec, path);
}

fn choices(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let restart = ["Always", "OnFailure", "Never"];
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    for (field, supported) in [("restartPolicy", &restart[..]), ("dnsPolicy", &dns[..])] {
        match spec.text(field) {
            "" => errors.required(&path.field(field), ""),
            value => errors.one_of(&path.field(field), value, supported),
        }
    }
}

fn resource_claims(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, claim) in spec.list("resourceClaims").iter().enumerate() {
        let (path, name) = (path.index(i), claim.text("name"));
        match name {
            "" => errors.required(&path.field("name"), ""),
            name if seen.contains(&name) => errors.duplicate(&path.field("name"), name),
            name => {
                errors.invalid_each(&path.field("name"), name, names::dns1123_label(name, false));
                seen.push(name);
            }
        }
        let (by_name, by_template) = (claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
        let printed = || {
            let fields = [("Name", name.into()), ("ResourceClaimName", by_name.clone())];
            go_struct(&[&fields[..], &[("ResourceClaimTemplateName", by_template.clone())]].concat())
        };
        match (by_name.is_null(), by_template.is_null()) {
            (false, false) => {
                let text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid_printed(&path, &printed(), text);
            }
            (true, true) => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid_printed(&path, &printed(), text);
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"].into_iter().filter(|f| claim.has(f)) {
            let name = claim.text(field);
            errors.invalid_each(&path.field(field), name, names::dns1123_subdomain(name, false));
        }
    }
}

fn pod_resources(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let resources = spec.at("resources");
    if resources.is_null() {
        return;
    }
    if spec.at("os").text("name") == "windows" {
        return errors.forbidden(path, "may not be set for a windows pod");
    }
    if resources.has("claims") {
        errors.forbidden(&path.field("claims"), "claims may not be set for Resources at pod-level");
    }
    quantities::requirements(errors, resources, &[], path, pod_resource_name);
    let requests = path.field("requests");
    for (name, sum) in super::resources::container_requests(spec) {
        let Some(own) = resources.at("requests").get(&name).map(quantities::quantity) else { continue };
        if sum > own {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests.key(&name), own.to_string(), &text);
        }
    }
}

fn pod_resource_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if quantities::resource_name(errors, name, path)
        && !["cpu", "memory"].contains(&name)
        && !quantities::is_huge_page(name)
    {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

fn host_network_ports(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    if !scope.spec.flag("hostNetwork") {
        return;
    }
    for (i, c) in scope.spec.list("containers").iter().enumerate() {
        let item = path.index(i);
        let ports = item.field("ports");
        for (j, port) in c.list("ports").iter().enumerate() {
            let (host, own) = (port.int("hostPort").unwrap_or(0), port.int("containerPort").unwrap_or(0));
            if (scope.is_pod || host != 0) && host != own {
                let text = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&ports.index(j).field("hostPort"), host, text);
            }
        }
    }
}

fn dns_config(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let config = spec.at("dnsConfig");
    let (servers, searches) = (config.texts("nameservers"), config.texts("searches"));
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&path.field("nameservers"), text);
        }
    }
    let list = path.field("nameservers");
    if servers.len() > 3 {
        errors.invalid(&list, config.at("nameservers").clone(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.into_iter().enumerate() {
        ip(errors, server, &list.index(i));
    }
    let list = path.field("searches");
    if searches.len() > 32 {
        errors.invalid(&list, config.at("searches").clone(), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let text = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&list, config.at("searches").clone(), text);
    }
    for (i, search) in searches.into_iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_each(&list.index(i), search, names::subdomain_with_underscore(search));
    }
    let list = path.field("options");
    for (i, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.required(&list.index(i), "must not be empty");
        }
    }
}

/// An error when a text is no IP address.
pub fn ip(errors: &mut Errors, text: &str, path: &Path<'_>) {
    if let Some(wrong) = names::ip(text) {
        errors.invalid(path, text, wrong);
    }
}

fn gates(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let list = path.field("readinessGates");
    for (i, gate) in spec.list("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        errors.invalid_each(&list.index(i).field("conditionType"), kind, names::qualified_name(kind));
    }
    let list = path.field("schedulingGates");
    let mut seen: Vec<&str> = Vec::new();
    for (i, gate) in spec.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        errors.invalid_each(&list.index(i), name, names::qualified_name(name));
        match seen.contains(&name) {
            true => errors.duplicate(&list.index(i), name),
            false => seen.push(name),
        }
    }
}

fn host_users(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    if scope.host_users() {
        return;
    }
    let text = "when `hostUsers` is false";
    for (flag, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if scope.spec.flag(flag) {
            errors.forbidden(&path.field(shown), text);
        }
    }
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (i, c) in scope.spec.list(list).iter().enumerate() {
            if !c.list("volumeDevices").is_empty() {
                errors.forbidden(&list_path.index(i).field("volumeDevices"), text);
            }
        }
    }
}

fn hostname_override(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if !spec.has("hostnameOverride") {
        return;
    }
    let (name, path) = (spec.text("hostnameOverride"), path.field("hostnameOverride"));
    if spec.flag("setHostnameAsFQDN") {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.flag("hostNetwork") {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        errors.too_long(&path, 64);
    }
    errors.invalid_each(&path, name, names::dns1123_subdomain(name, false));
}

fn names_and_limits(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let name = |errors: &mut Errors, field: &str, rule: names::NameRule| {
        let text = spec.text(field);
        if !text.is_empty() {
            errors.invalid_each(&path.field(field), text, rule(text, false));
        }
    };
    name(errors, "serviceAccountName", names::dns1123_subdomain);
    name(errors, "nodeName", names::dns1123_subdomain);
    if let Some(seconds) = spec.int("activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let text = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.field("activeDeadlineSeconds"), seconds, text);
    }
    name(errors, "hostname", names::dns1123_label);
    name(errors, "subdomain", names::dns1123_label);
    affinity::tolerations(errors, spec.list("tolerations"), &path.field("tolerations"));
    let list = path.field("hostAliases");
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let item = list.index(i);
        ip(errors, alias.text("ip"), &item.field("ip"));
        let hostnames = item.field("hostnames");
        for (j, host) in alias.texts("hostnames").into_iter().enumerate() {
            errors.invalid_each(&hostnames.index(j), host, names::dns1123_subdomain(host, false));
        }
    }
    name(errors, "priorityClassName", names::dns1123_subdomain);
    if spec.has("runtimeClassName") {
        let class = spec.text("runtimeClassName");
        errors.invalid_each(&path.field("runtimeClassName"), class, names::dns1123_subdomain(class, false));
    }
    if spec.has("preemptionPolicy") {
        let policy = spec.text("preemptionPolicy");
        match policy {
            "" => errors.required(&path.field("preemptionPolicy"), ""),
            policy => errors.one_of(&path.field("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]),
        }
    }
    if spec.has("overhead") {
        let limits = serde_json::json!({"limits": spec.at("overhead")});
        quantities::requirements(errors, &limits, &[], &path.field("overhead"), quantities::container_resource_name);
    }
}

/// Files that hold variables live in `emptyDir` volumes.
fn file_volumes(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (i, c) in spec.list(list).iter().enumerate() {
            let item = list_path.index(i);
            let env = item.field("env");
            for (j, var) in c.list("env").iter().enumerate() {
                let file = var.at("valueFrom").at("fileKeyRef");
                if file.is_null() {
                    continue;
                }
                let (name, at) = (file.text("volumeName"), env.index(j));
                let path = at.field("valueFrom.fileKeyRef.volumeName");
                match spec.list("volumes").iter().find(|v| v.text("name") == name) {
                    None => errors.not_found(&path, name),
                    Some(volume) if volume.has("emptyDir") => {}
                    Some(_) => errors.invalid(&path, name, "referenced volume must be of type emptyDir"),
                }
            }
        }
    }
}
