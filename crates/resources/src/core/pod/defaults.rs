//! What a pod gets when its author left it out. Templates share all of it but [`pod`]'s own part.

use crate::core::quantities::round_up;
use crate::field::{Fields, drop_empty, field_mut, items_mut, map_mut, set_default};
use serde_json::{Value, json};

/// The three lists of containers.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a whole pod.
pub fn pod(obj: &mut Value) {
    let Some(spec) = map_mut(obj, "spec") else { return };
    pod_spec(spec);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    for list in ["containers", "initContainers"] {
        items_mut(spec, list).for_each(requests_from_limits);
    }
    pod_requests(spec);
    set_default(spec, "enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            items_mut(spec, list).flat_map(|c| items_mut(c, "ports")).for_each(host_port);
        }
    }
}

/// Defaults of a pod template.
pub fn template(template: &mut Value) {
    if template.is_object() {
        map_mut(template, "metadata");
        if let Some(spec) = map_mut(template, "spec") {
            pod_spec(spec);
        }
    }
}

/// Defaults of a pod's spec, in a pod or a template.
pub fn pod_spec(spec: &mut Value) {
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "schedulerName", "default-scheduler");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    map_mut(spec, "securityContext");
    if !spec.has("containers") {
        spec["containers"] = Value::Null;
    }
    service_account(spec);
    for flag in ["hostNetwork", "hostPID", "hostIPC"] {
        drop_empty(spec, flag);
    }
    items_mut(spec, "volumes").for_each(volume);
    for list in CONTAINER_LISTS {
        items_mut(spec, list).for_each(container);
    }
    if let Some(overhead) = field_mut(spec, "overhead") {
        round_up(overhead);
    }
    if let Some(resources) = field_mut(spec, "resources") {
        resource_lists(resources);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
pub fn service_account(spec: &mut Value) {
    let name = match spec.text("serviceAccountName") {
        "" => spec.text("serviceAccount"),
        name => name,
    };
    let name = Value::from(name);
    if name != "" {
        spec["serviceAccountName"] = name.clone();
        spec["serviceAccount"] = name;
    }
}

fn container(c: &mut Value) {
    let policy = if image_tag(c.text("image")) == Some("latest") { "Always" } else { "IfNotPresent" };
    set_default(c, "imagePullPolicy", policy);
    set_default(c, "terminationMessagePath", "/dev/termination-log");
    set_default(c, "terminationMessagePolicy", "File");
    if let Some(resources) = map_mut(c, "resources") {
        resource_lists(resources);
    }
    for port in items_mut(c, "ports") {
        set_default(port, "protocol", "TCP");
        drop_empty(port, "hostPort");
    }
    for env in items_mut(c, "env") {
        drop_empty(env, "value");
        field_mut(env, "valueFrom").into_iter().for_each(field_source);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        field_mut(c, probe).into_iter().for_each(self::probe);
    }
    if let Some(lifecycle) = field_mut(c, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            field_mut(lifecycle, hook).into_iter().for_each(http_get);
        }
    }
}

fn resource_lists(resources: &mut Value) {
    for list in ["limits", "requests"] {
        field_mut(resources, list).into_iter().for_each(round_up);
    }
}

/// Amounts in a status are as coarse as those of a spec.
pub fn status(status: &mut Value) {
    for list in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        items_mut(status, list).for_each(reported);
    }
    reported(status);
}

/// What was given to a container, or to a pod.
fn reported(of: &mut Value) {
    field_mut(of, "allocatedResources").into_iter().for_each(round_up);
    field_mut(of, "resources").into_iter().for_each(resource_lists);
}

/// What a container does not request it gets as its limits.
fn requests_from_limits(c: &mut Value) {
    let Some(resources) = field_mut(c, "resources") else { return };
    let limits = resources.at("limits").clone();
    let Value::Object(limits) = limits else { return };
    if let Some(requests) = map_mut(resources, "requests") {
        limits.iter().for_each(|(name, value)| set_default(requests, name, value.clone()));
    }
}

/// What a pod with limits of its own does not request it gets from its containers, then from its limits.
fn pod_requests(spec: &mut Value) {
    if spec.at("resources").entries("limits").next().is_none() {
        return;
    }
    let sums = super::resources::container_requests(spec);
    let limits = spec.at("resources").at("limits").clone();
    let supported = |name: &str| name == "cpu" || name == "memory" || crate::core::quantities::is_huge_page(name);
    let given = spec.at("resources").has("requests");
    let Some(resources) = field_mut(spec, "resources") else { return };
    let Some(requests) = map_mut(resources, "requests") else { return };
    for (name, sum) in sums.iter().filter(|(n, _)| n.as_str() == "cpu" || n.as_str() == "memory") {
        set_default(requests, name, sum.to_string());
    }
    for (name, limit) in limits.as_object().into_iter().flatten().filter(|(n, _)| supported(n)) {
        set_default(requests, name, limit.clone());
    }
    if !given {
        drop_empty(resources, "requests");
    }
}

fn host_port(port: &mut Value) {
    let container_port = port.int("containerPort").unwrap_or(0);
    if port.int("hostPort").unwrap_or(0) == 0 && container_port != 0 {
        port["hostPort"] = container_port.into();
    }
}

/// Defaults of a probe.
fn probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.int(field).unwrap_or(0) == 0 {
            probe[field] = value.into();
        }
    }
    drop_empty(probe, "initialDelaySeconds");
    if let Some(grpc) = field_mut(probe, "grpc") {
        if !grpc.has("service") {
            grpc["service"] = "".into();
        }
    }
    http_get(probe);
}

fn http_get(handler: &mut Value) {
    if let Some(http) = field_mut(handler, "httpGet") {
        set_default(http, "path", "/");
        set_default(http, "scheme", "HTTP");
    }
}

fn field_source(source: &mut Value) {
    if let Some(field) = field_mut(source, "fieldRef") {
        set_default(field, "apiVersion", "v1");
    }
    if let Some(resource) = field_mut(source, "resourceFieldRef") {
        set_default(resource, "divisor", "0");
    }
    if let Some(file) = field_mut(source, "fileKeyRef") {
        set_default(file, "optional", false);
    }
}

/// Defaults of the sources that volumes of pods and persistent volumes have.
pub fn volume_sources(map: &mut serde_json::Map<String, Value>) {
    for (source, field, value) in VOLUME_DEFAULTS {
        if let Some(source) = map.get_mut(*source).filter(|v| v.is_object()) {
            let value = value.parse::<i64>().map_or_else(|_| Value::from(*value), Value::from);
            set_default(source, field, value);
        }
    }
    if let Some(host) = map.get_mut("hostPath").filter(|v| v.is_object()) {
        if !host.has("type") {
            host["type"] = "".into();
        }
    }
    if let Some(disk) = map.get_mut("azureDisk").filter(|v| v.is_object()) {
        set_default(disk, "readOnly", false);
    }
}

fn volume(volume: &mut Value) {
    let Value::Object(map) = volume else { return };
    if !map.iter().any(|(name, value)| name != "name" && !value.is_null()) {
        map.insert("emptyDir".into(), json!({}));
    }
    volume_sources(map);
    for item in map.get_mut("downwardAPI").into_iter().flat_map(|d| items_mut(d, "items")) {
        field_source(item);
    }
    for source in map.get_mut("projected").into_iter().flat_map(|p| items_mut(p, "sources")) {
        projection(source);
    }
    if let Some(image) = map.get_mut("image").filter(|v| v.is_object()) {
        let latest = image_tag(image.text("reference")) == Some("latest");
        set_default(image, "pullPolicy", if latest { "Always" } else { "IfNotPresent" });
    }
    if let Some(claim) = map.get_mut("ephemeral").and_then(|e| field_mut(e, "volumeClaimTemplate")) {
        map_mut(claim, "metadata");
        if let Some(spec) = map_mut(claim, "spec") {
            set_default(spec, "volumeMode", "Filesystem");
            map_mut(spec, "resources").into_iter().for_each(resource_lists);
        }
    }
}

const VOLUME_DEFAULTS: &[(&str, &str, &str)] = &[
    ("secret", "defaultMode", "420"),
    ("configMap", "defaultMode", "420"),
    ("downwardAPI", "defaultMode", "420"),
    ("projected", "defaultMode", "420"),
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("azureDisk", "cachingMode", "ReadWrite"),
    ("azureDisk", "fsType", "ext4"),
    ("azureDisk", "kind", "Shared"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
];

fn projection(source: &mut Value) {
    if let Some(token) = field_mut(source, "serviceAccountToken") {
        set_default(token, "expirationSeconds", 3600);
    }
    if let Some(certificate) = field_mut(source, "podCertificate") {
        set_default(certificate, "maxExpirationSeconds", 86_400);
    }
    for item in field_mut(source, "downwardAPI").into_iter().flat_map(|d| items_mut(d, "items")) {
        field_source(item);
    }
}

/// The tag of an image, `latest` when it has neither tag nor digest, `None` when it has only a digest or is no
/// image name.
pub fn image_tag(image: &str) -> Option<&str> {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let first = named.split_once('/').map(|(first, _)| first);
    // a first part that cannot be part of a path is a registry's host
    let host =
        first.filter(|first| *first == "localhost" || first.contains(|c: char| ".:".contains(c) || c.is_uppercase()));
    let rest = host.map_or(named, |host| &named[host.len() + 1..]);
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    let official = host.is_none_or(|host| ["docker.io", "index.docker.io"].contains(&host)) && !path.contains('/');
    let hexadecimal = image.len() == 64 && image.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let fine = !hexadecimal
        && host.is_none_or(|host| is_host(host) || is_path_component(host))
        && path.split('/').all(is_path_component)
        && path.len() <= if official { PATH_MAX - "library/".len() } else { PATH_MAX }
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    match (tag, digest) {
        _ if !fine => None,
        (Some(tag), _) => Some(tag),
        (None, None) => Some("latest"),
        (None, Some(_)) => None,
    }
}

/// As long as the path of an image may be.
const PATH_MAX: usize = 255;

/// Whether it is letters and digits, `inside` also with these between them.
fn is_word(text: &str, inside: impl Fn(u8) -> bool) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|c| c.is_ascii_alphanumeric() || inside(*c))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, rest)) if rest.is_empty() || rest.starts_with(':') => {
            let fine = !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
            return fine && rest.strip_prefix(':').is_none_or(is_number);
        }
        _ => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    host.split('.').all(|part| is_word(part, |c| c == b'-')) && port.is_none_or(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

/// Words with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(text: &str) -> bool {
    let mut between =
        text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|part| !part.is_empty());
    let separates = |part: &str| matches!(part, "." | "_" | "__") || part.bytes().all(|c| c == b'-');
    is_word(text, |c| b"._-".contains(&c)) && between.all(separates)
}

fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.bytes().next().is_some_and(word) && text.len() <= 128 && text.bytes().all(|c| word(c) || b".-".contains(&c))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        // of others nothing is known
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let hexadecimal = &"a".repeat(64);
        let with_digest = &format!("nginx:latest@sha256:{hexadecimal}");
        for (image, want) in [
            ("nginx", Some("latest")),
            ("nginx:1", Some("1")),
            ("r.test:5000/a/nginx", Some("latest")),
            ("r.test:5000/nginx:latest", Some("latest")),
            ("nginx@sha256:00", None),
            ("nginx:latest@sha256:00", None),
            (with_digest, Some("latest")),
            ("localhost/a", Some("latest")),
            ("a.b/c__d/e--f.g", Some("latest")),
            ("a..b", None),
            ("/a", None),
            ("../x", None),
            ("-x", None),
            ("a:b:c", None),
            ("10.0.0.0/8", Some("latest")),
            ("Host/a:1", Some("1")),
            ("[::1]:80/a", Some("latest")),
            (hexadecimal, None),
            ("", None),
            (" a ", None),
            ("Bad", None),
        ] {
            assert_eq!(image_tag(image), want, "{image}");
        }
    }

    #[test]
    fn a_minimal_pod() {
        let mut obj = json!({"spec": {"containers": [{"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1"}},
            "livenessProbe": {"httpGet": {"port": 1}}}], "volumes": [{"name": "v"}, {"name": "s", "secret": {}}]}});
        pod(&mut obj);
        let spec = &obj["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["enableServiceLinks"], true);
        assert_eq!(spec["securityContext"], json!({}));
        assert_eq!(
            spec["volumes"],
            json!([{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"defaultMode": 420}}])
        );
        let c = &spec["containers"][0];
        assert_eq!(c["imagePullPolicy"], "IfNotPresent");
        assert_eq!(c["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        assert_eq!(
            c["livenessProbe"],
            json!({"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
    }
}
