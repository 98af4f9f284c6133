//! Validation of a pod's spec, in a pod or a template.

use super::defaults::CONTAINER_LISTS;
use super::{affinity, container, security, volume};
use crate::core::quantities;
use crate::field::{Errors, Fields, Path, go_struct};
use crate::rules::{self, Check, Rule, Unique, each, each_of, each_text};
use crate::{metadata, names};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// What the parts of a spec need to know of the rest.
pub struct Scope<'a> {
    /// The whole spec.
    pub spec: &'a Value,
    /// Volumes without errors, by name.
    pub volumes: HashMap<&'a str, &'a Value>,
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

/// How the pod is run.
const RUN: &[Rule] = &[
    ("restartPolicy", Check::OneOf(&["Always", "OnFailure", "Never"])),
    ("dnsPolicy", Check::OneOf(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"])),
    ("nodeSelector", Check::By(metadata::labels)),
];
/// Where it is run, and when.
const PLACE: &[Rule] = &[
    ("affinity", Check::By(affinity::affinity)),
    ("dnsConfig", Check::In(dns_config)),
    ("readinessGates", Check::Each(readiness_gate)),
    ("schedulingGates", Check::In(scheduling_gates)),
    ("topologySpreadConstraints", Check::In(affinity::topology_spread)),
];
/// Who it is, and the rest.
const REST: &[Rule] = &[
    ("hostnameOverride", Check::In(hostname_override)),
    ("serviceAccountName", Check::MaybeNamed(names::subdomain)),
    ("nodeName", Check::MaybeNamed(names::subdomain)),
    ("activeDeadlineSeconds", Check::Within(1, i32::MAX as i64, "must be between 1 and 2147483647, inclusive")),
    ("hostname", Check::MaybeNamed(names::label)),
    ("subdomain", Check::MaybeNamed(names::label)),
    ("tolerations", Check::In(affinity::tolerations)),
    ("hostAliases", Check::Each(host_alias)),
    ("priorityClassName", Check::MaybeNamed(names::subdomain)),
    ("runtimeClassName", Check::NamedIfThere(names::subdomain)),
    ("preemptionPolicy", Check::By(preemption)),
    ("overhead", Check::By(overhead)),
];

/// Errors of a spec. `meta` is the pod's metadata, `Null` for a template.
pub fn pod_spec(errors: &mut Errors, spec: &Value, meta: &Value, is_pod: bool, path: &Path<'_>) {
    if !spec.has("terminationGracePeriodSeconds") {
        errors.required(&path.field("terminationGracePeriodSeconds"), "");
    }
    let volumes = volume::volumes(errors, spec, meta, is_pod, &path.field("volumes"));
    let mut claims: Vec<&str> = spec.list("resourceClaims").iter().map(|c| c.text("name")).collect();
    claims.retain(|name| !name.is_empty());
    claims.sort_unstable();
    claims.dedup();
    let grace = spec.int("terminationGracePeriodSeconds");
    let scope = &Scope { spec, volumes, claims, grace, is_pod };
    rules::check(errors, spec, path, &[("resourceClaims", Check::In(resource_claims))]);
    container::containers(errors, scope, path);
    container::init_containers(errors, scope, path);
    container::ephemeral_containers(errors, scope, path);
    pod_resources(errors, scope, &path.field("resources"));
    host_network_ports(errors, scope, path);
    rules::check(errors, spec, path, RUN);
    security::pod(errors, scope, &path.field("securityContext"));
    rules::check(errors, spec, path, PLACE);
    security::host_process(errors, spec, path);
    host_users(errors, scope, path);
    rules::check(errors, spec, path, REST);
    security::operating_system(errors, spec, path);
    each_of(spec, &CONTAINER_LISTS, path, |c, path| {
        each(c, "env", path, |variable, path| file_volume(errors, spec, variable, path));
    });
}

fn resource_claims(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let mut seen = HashSet::new();
    for (i, claim) in spec.list("resourceClaims").iter().enumerate() {
        let (path, name) = (path.index(i), claim.text("name"));
        match seen.contains(name) {
            true => errors.duplicate(&path.field("name"), name),
            false => rules::check(errors, claim, &path, &[("name", Check::Named(names::label))]),
        }
        if !name.is_empty() {
            seen.insert(name);
        }
        claim_source(errors, claim, &path);
    }
}

fn claim_source(errors: &mut Errors, claim: &Value, path: &Path<'_>) {
    let (by_name, by_template) = (claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
    let text = match (by_name.is_null(), by_template.is_null()) {
        (false, false) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        (true, true) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        _ => "",
    };
    if !text.is_empty() {
        let shown = [
            ("Name", claim.text("name").into()),
            ("ResourceClaimName", by_name.clone()),
            ("ResourceClaimTemplateName", by_template.clone()),
        ];
        errors.invalid_printed(path, || go_struct(&shown), text);
    }
    const NAME: Check = Check::NamedIfThere(names::subdomain);
    rules::check(errors, claim, path, &[("resourceClaimName", NAME), ("resourceClaimTemplateName", NAME)]);
}

fn pod_resources(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let (spec, resources) = (scope.spec, scope.spec.at("resources"));
    if resources.is_null() {
        return;
    }
    if spec.at("os").text("name") == "windows" {
        return errors.forbidden(path, "may not be set for a windows pod");
    }
    if resources.has("claims") {
        errors.forbidden(&path.field("claims"), "claims may not be set for Resources at pod-level");
    }
    quantities::requirements(errors, resources, &scope.claims, path, pod_resource_name);
    let requests = path.field("requests");
    for (name, sum) in super::resources::container_requests(spec) {
        let Some(own) = resources.at("requests").get(&name).map(quantities::quantity) else { continue };
        if sum > own {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests.key(&name), own.to_string(), &text);
        }
    }
    pod_limits(errors, spec, path);
}

/// Huge pages of all containers, and every resource of each, stay within the pod's limits.
fn pod_limits(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (own, limits) = (spec.at("resources").at("limits"), path.field("limits"));
    let of_pod = |name: &str| own.get(name).map(quantities::quantity);
    let sums = super::resources::container_limits(spec);
    for (name, sum) in sums.into_iter().filter(|(name, _)| quantities::is_huge_page(name)) {
        if let Some(own) = of_pod(&name).filter(|own| sum > *own) {
            let text = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&limits.key(&name), own.to_string(), &text);
        }
    }
    each(spec, "containers", path, |c, path| {
        for (name, limit) in c.at("resources").entries("limits") {
            let limit = quantities::quantity(limit);
            if let Some(own) = of_pod(name).filter(|own| limit > *own) {
                let text = format!("must be less than or equal to pod limits of {own}");
                errors.invalid(&path.key(name).field("limits"), limit.to_string(), &text);
            }
        }
    });
}

fn pod_resource_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    let known = ["cpu", "memory"].contains(&name) || quantities::is_huge_page(name);
    if quantities::resource_name(errors, name, path) && !known {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// On the host's network a port of a container is the host's.
fn host_network_ports(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    if !scope.spec.flag("hostNetwork") {
        return;
    }
    each(scope.spec, "containers", path, |c, path| {
        each(c, "ports", path, |port, path| {
            let (host, own) = (port.int("hostPort").unwrap_or(0), port.int("containerPort").unwrap_or(0));
            if (scope.is_pod || host != 0) && host != own {
                let text = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.field("hostPort"), host, text);
            }
        });
    });
}

fn dns_config(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let config = spec.at("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if config.texts("nameservers").is_empty() {
            let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&path.field("nameservers"), text);
        }
    }
    rules::check(
        errors,
        config,
        path,
        &[
            ("nameservers", Check::In(nameservers)),
            ("searches", Check::In(searches)),
            ("options", Check::Each(dns_option)),
        ],
    );
}

fn nameservers(errors: &mut Errors, config: &Value, path: &Path<'_>) {
    let servers = config.texts("nameservers");
    if servers.len() > 3 {
        errors.invalid(path, config.at("nameservers").clone(), "must not have more than 3 nameservers");
    }
    servers.into_iter().enumerate().for_each(|(i, server)| errors.ip(&path.index(i), server));
}

fn searches(errors: &mut Errors, config: &Value, path: &Path<'_>) {
    let searches = config.texts("searches");
    let long = "must not have more than 2048 characters (including spaces) in the search list";
    for (wrong, text) in
        [(searches.len() > 32, "must not have more than 32 search paths"), (searches.join(" ").len() > 2048, long)]
    {
        if wrong {
            errors.invalid(path, config.at("searches").clone(), text);
        }
    }
    for (i, search) in searches.into_iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_each(&path.index(i), search, names::subdomain_with_underscore(search));
    }
}

fn dns_option(errors: &mut Errors, option: &Value, path: &Path<'_>) {
    if option.text("name").is_empty() {
        errors.required(path, "must not be empty");
    }
}

fn readiness_gate(errors: &mut Errors, gate: &Value, path: &Path<'_>) {
    let kind = gate.text("conditionType");
    errors.invalid_each(&path.field("conditionType"), kind, names::qualified_name(kind));
}

fn scheduling_gates(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let mut seen = Unique::default();
    for (i, gate) in spec.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        errors.invalid_each(&path.index(i), name, names::qualified_name(name));
        seen.add(errors, name, &path.index(i));
    }
}

/// A user namespace of its own keeps a pod from the host's others, and from devices.
fn host_users(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    const TEXT: &str = "when `hostUsers` is false";
    if scope.host_users() {
        return;
    }
    for (flag, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if scope.spec.flag(flag) {
            errors.forbidden(&path.field(shown), TEXT);
        }
    }
    each_of(scope.spec, &CONTAINER_LISTS, path, |c, path| {
        rules::check(errors, c, path, &[("volumeDevices", Check::Unset(TEXT))]);
    });
}

fn hostname_override(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if !spec.has("hostnameOverride") {
        return;
    }
    for flag in ["setHostnameAsFQDN", "hostNetwork"].into_iter().filter(|flag| spec.flag(flag)) {
        errors.forbidden(path, &format!("may not be specified when {flag} is true"));
    }
    let name = spec.text("hostnameOverride");
    if name.len() > 64 {
        errors.too_long(path, 64);
    }
    errors.invalid_each(path, name, names::subdomain(name));
}

fn host_alias(errors: &mut Errors, alias: &Value, path: &Path<'_>) {
    errors.ip(&path.field("ip"), alias.text("ip"));
    each_text(alias, "hostnames", path, |host, path| errors.invalid_each(path, host, names::subdomain(host)));
}

fn preemption(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    match policy.as_str() {
        None => {}
        Some("") => errors.required(path, ""),
        Some(policy) => errors.one_of(path, policy, &["PreemptLowerPriority", "Never"]),
    }
}

/// Overhead is told as the limits of a container are.
fn overhead(errors: &mut Errors, overhead: &Value, path: &Path<'_>) {
    if !overhead.is_null() {
        let limits = serde_json::json!({"limits": overhead});
        quantities::requirements(errors, &limits, &[], path, quantities::container_resource_name);
    }
}

/// A file that holds a variable lives in an `emptyDir` volume.
fn file_volume(errors: &mut Errors, spec: &Value, variable: &Value, path: &Path<'_>) {
    let file = variable.at("valueFrom").at("fileKeyRef");
    if file.is_null() {
        return;
    }
    let (name, path) = (file.text("volumeName"), path.field("valueFrom.fileKeyRef.volumeName"));
    match spec.list("volumes").iter().find(|v| v.text("name") == name) {
        None => errors.not_found(&path, name),
        Some(volume) if volume.has("emptyDir") => {}
        Some(_) => errors.invalid(&path, name, "referenced volume must be of type emptyDir"),
    }
}
