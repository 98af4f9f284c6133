//! Validation of containers of all three lists.

use super::{Scope, env, probe, security, volume};
use crate::core::quantities;
use crate::field::{Errors, Fields, Path, repeated};
use crate::names;
use crate::rules::{self, Check, Rule, Unique, each};
use serde_json::Value;
use std::collections::HashSet;

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
/// What is there is refused, even when it is empty.
const NOT_FOR_EPHEMERAL: Check = Check::Absent(NOT_EPHEMERAL);
const NOT_FOR_INIT: Check = Check::Absent("may not be set for init containers without restartPolicy=Always");
/// What only containers have that start with their pod.
const EPHEMERAL: &[Rule] = &[
    ("ports", NOT_FOR_EPHEMERAL),
    ("resources", Check::By(no_resources)),
    ("resizePolicy", NOT_FOR_EPHEMERAL),
    ("restartPolicy", NOT_FOR_EPHEMERAL),
    ("restartPolicyRules", NOT_FOR_EPHEMERAL),
    ("livenessProbe", NOT_FOR_EPHEMERAL),
    ("readinessProbe", NOT_FOR_EPHEMERAL),
    ("startupProbe", NOT_FOR_EPHEMERAL),
    ("lifecycle", NOT_FOR_EPHEMERAL),
    ("volumeMounts", Check::Each(whole_volume)),
];
/// What only containers have that keep running.
const ONCE: &[Rule] = &[
    ("lifecycle", NOT_FOR_INIT),
    ("livenessProbe", NOT_FOR_INIT),
    ("readinessProbe", NOT_FOR_INIT),
    ("startupProbe", NOT_FOR_INIT),
    ("resizePolicy", Check::Each(resized_running)),
];
const EVERY: &[Rule] = &[
    ("name", Check::Named(names::label)),
    ("image", Check::Given("")),
    ("terminationMessagePolicy", Check::OneOf(&["File", "FallbackToLogsOnError"])),
    ("ports", Check::In(ports)),
    ("env", Check::Each(env::variable)),
    ("envFrom", Check::In(env::variables_from)),
];
/// The policies of pulling an image.
pub const PULL: Check = Check::OneOf(&["Always", "IfNotPresent", "Never"]);
/// The protocols of ports.
pub const PROTOCOL: Check = Check::OneOf(&["SCTP", "TCP", "UDP"]);
const PORT: &[Rule] =
    &[("containerPort", Check::In(container_port)), ("hostPort", Check::By(host_port)), ("protocol", PROTOCOL)];
const RESIZES: [(&str, [&str; 2]); 2] =
    [("resourceName", ["cpu", "memory"]), ("restartPolicy", ["NotRequired", "RestartContainer"])];
const RESTARTS: &[Rule] = &[("restartPolicyRules", Check::In(restart_rules))];
const RESTART_RULE: &[Rule] =
    &[("action", Check::Among(&["Restart", "RestartAllContainers"])), ("exitCodes", Check::By(exit_codes))];

/// Errors of `containers`.
pub fn containers(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    if scope.spec.list("containers").is_empty() {
        return errors.required(&path.field("containers"), "");
    }
    let (mut names, mut ports) = (Unique::default(), HostPorts::default());
    each(scope.spec, "containers", path, |c, path| {
        every(errors, scope, c, path);
        names.add(errors, c.text("name"), &path.field("name"));
        probe::handlers(errors, scope, c, path);
        if restart_policy(errors, c, path) {
            rules::check(errors, c, path, RESTARTS);
        }
    });
    each(scope.spec, "containers", path, |c, path| ports.add(errors, c, path));
}

/// Errors of `initContainers`.
pub fn init_containers(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let mut names = Unique::with(scope.spec.list("containers").iter().map(|c| c.text("name")));
    let list = path.field("initContainers");
    each(scope.spec, "initContainers", path, |c, path| {
        every(errors, scope, c, path);
        // a missing policy leaves the rules of an init container without a meaning
        if restart_policy(errors, c, path) && c.has("restartPolicy") {
            rules::check(errors, c, path, RESTARTS);
        }
        if !c.text("name").is_empty() || names.has("") {
            names.add(errors, c.text("name"), &path.field("name"));
        }
        // each starts alone, so its ports only clash among themselves, and its place is not told
        HostPorts::default().add(errors, c, &list.index(0));
        match c.text("restartPolicy") {
            "Always" => probe::handlers(errors, scope, c, path),
            _ => rules::check(errors, c, path, ONCE),
        }
    });
}

/// Errors of `ephemeralContainers`.
pub fn ephemeral_containers(errors: &mut Errors, scope: &Scope<'_>, path: &Path<'_>) {
    let others = ["containers", "initContainers"];
    let others: HashSet<&str> = others.iter().flat_map(|l| scope.spec.list(l)).map(|c| c.text("name")).collect();
    let mut names = Unique::with(others.iter().copied());
    each(scope.spec, "ephemeralContainers", path, |c, path| {
        every(errors, scope, c, path);
        image_spaces(errors, c, path);
        names.add(errors, c.text("name"), &path.field("name"));
        let target = c.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.field("targetContainerName"), target);
        }
        rules::check(errors, c, path, EPHEMERAL);
    });
}

fn no_resources(errors: &mut Errors, resources: &Value, path: &Path<'_>) {
    if ["claims", "limits", "requests"].iter().any(|field| resources.has(field)) {
        errors.forbidden(path, NOT_EPHEMERAL);
    }
}

fn whole_volume(errors: &mut Errors, mount: &Value, path: &Path<'_>) {
    for field in ["subPath", "subPathExpr"].into_iter().filter(|f| !mount.text(f).is_empty()) {
        errors.forbidden(&path.field(field), NOT_EPHEMERAL);
    }
}

fn resized_running(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    if policy.text("restartPolicy") == "RestartContainer" {
        let text = "must not be set to 'RestartContainer' for non-sidecar initContainers";
        errors.invalid(&path.field("restartPolicy"), "RestartContainer", text);
    }
}

/// An error when an image's name is padded (checked for pods, not for templates).
pub fn image_spaces(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    let image = c.text("image");
    if image.trim() != image {
        errors.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
    }
}

/// Errors of what a container has in whichever list it is.
fn every(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    rules::check(errors, c, path, EVERY);
    volume::mounts(errors, scope, c, &path.field("volumeMounts"));
    volume::devices(errors, scope, c, &path.field("volumeDevices"));
    rules::check(errors, c, path, &[("imagePullPolicy", PULL)]);
    let name = quantities::container_resource_name;
    quantities::requirements(errors, c.at("resources"), &scope.claims, &path.field("resources"), name);
    resize_policy(errors, scope, c, &path.field("resizePolicy"));
    security::container(errors, scope, c.at("securityContext"), &path.field("securityContext"));
}

/// Names of ports are unique where they are good.
fn ports(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    let mut names = Unique::default();
    for (i, port) in c.list("ports").iter().enumerate() {
        let (path, name) = (path.index(i), port.text("name"));
        let wrong = if name.is_empty() { Vec::new() } else { names::port_name(name) };
        match wrong.is_empty() {
            true if name.is_empty() => {}
            true => names.add(errors, name, &path.field("name")),
            false => errors.invalid_each(&path.field("name"), name, wrong),
        }
        rules::check(errors, port, &path, PORT);
    }
}

fn container_port(errors: &mut Errors, port: &Value, path: &Path<'_>) {
    match port.int("containerPort").unwrap_or(0) {
        0 => errors.required(path, ""),
        number => errors.port_number(path, number),
    }
}

fn host_port(errors: &mut Errors, number: &Value, path: &Path<'_>) {
    if let Some(number) = number.as_i64().filter(|number| *number != 0) {
        errors.port_number(path, number);
    }
}

/// Ports of the host that are taken.
#[derive(Default)]
struct HostPorts(HashSet<String>);

impl HostPorts {
    fn add(&mut self, errors: &mut Errors, c: &Value, path: &Path<'_>) {
        each(c, "ports", path, |port, path| {
            let number = port.int("hostPort").unwrap_or(0);
            let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if number != 0 && !self.0.insert(key.clone()) {
                errors.duplicate(&path.field("hostPort"), key);
            }
        });
    }
}

/// Upstream's paths of most of these errors are those of the list.
fn resize_policy(errors: &mut Errors, scope: &Scope<'_>, c: &Value, path: &Path<'_>) {
    let policies = c.list("resizePolicy");
    let again = repeated(policies.iter().map(|policy| policy.text("resourceName")));
    for (i, policy) in policies.iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if again[i] {
            errors.duplicate(&path.index(i), resource);
        }
        for (field, supported) in RESIZES {
            match policy.text(field) {
                "" => errors.required(path, ""),
                value => errors.one_of(path, value, &supported),
            }
        }
        if scope.spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// Finds errors of a container's own policy; whether it has one, or rules that need one.
fn restart_policy(errors: &mut Errors, c: &Value, path: &Path<'_>) -> bool {
    let (policy, given) = (path.field("restartPolicy"), c.has("restartPolicy"));
    let has_rules = !c.list("restartPolicyRules").is_empty();
    if given {
        errors.one_of(&policy, c.text("restartPolicy"), &["Always", "Never", "OnFailure"]);
    } else if has_rules {
        errors.required(&policy, "must specify restartPolicy when restart rules are used");
    }
    given || has_rules
}

fn restart_rules(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    let list = c.list("restartPolicyRules");
    if list.len() > 20 {
        errors.too_many(path, list.len(), 20);
    }
    for (i, rule) in list.iter().enumerate() {
        rules::check(errors, rule, &path.index(i), RESTART_RULE);
    }
}

fn exit_codes(errors: &mut Errors, codes: &Value, path: &Path<'_>) {
    if codes.is_null() {
        return errors.required(path, "must be specified");
    }
    rules::check(errors, codes, path, &[("operator", Check::Among(&["In", "NotIn"]))]);
    let count = codes.list("values").len();
    if count > 255 {
        errors.too_many(&path.field("values"), count, 255);
    }
}
