//! `certificates.k8s.io`.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, map_mut, repeated, same};
use crate::{Ctx, MetadataChecks, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Errors of a signer's name, `example.com/name`.
pub fn signer_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, signer] = parts[..] else {
        return errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    for text in names::dns1123_subdomain(domain, false) {
        errors.invalid(path, domain, &format!("validating label {domain:?}: {text}"));
    }
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for label in signer.split('.') {
        for text in names::dns1123_subdomain(label, false) {
            errors.invalid(path, signer, &format!("validating label {label:?}: {text}"));
        }
    }
    if name.len() > 571 {
        errors.too_long(path, 571);
    }
}

/// Certificate signing requests.
pub struct CertificateSigningRequest;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    Column::string("SignerName").describe("Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`."),
    Column::string("Requestor").describe("Base64-encoded PKCS#10 CSR data"),
    Column::string("RequestedDuration").field("io.k8s.api.certificates.v1.CertificateSigningRequestSpec", "expirationSeconds"),
    Column::string("Condition").describe("Conditions applied to the request, such as approval or denial."),

];
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

impl Strategy for CertificateSigningRequest {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "status");
    }

    fn prepare_for_create(&self, ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({});
        if let Some(spec) = map_mut(obj, "spec") {
            for field in ["username", "uid", "groups", "extra"] {
                spec.as_object_mut().map(|map| map.remove(field));
            }
            spec["username"] = ctx.user.into();
            if !ctx.groups.is_empty() {
                spec["groups"] = json!(ctx.groups);
            }
        }
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
        copy_field(new, old, "status");
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_name(&self, _name: &str, _prefix: bool) -> Vec<String> {
        Vec::new()
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        request(&mut errors, spec.at("request"), &SPEC.field("request"));
        let (usages, path) = (spec.texts("usages"), SPEC.field("usages"));
        if usages.is_empty() {
            errors.required(&path, "");
        }
        let twice = repeated(usages.iter());
        for (i, usage) in usages.iter().enumerate() {
            errors.supported(&path.index(i), usage, &USAGES);
            if twice[i] {
                errors.duplicate(&path.index(i), *usage);
            }
        }
        let (signer, path) = (spec.text("signerName"), SPEC.field("signerName"));
        if signer == "kubernetes.io/legacy-unknown" {
            errors.invalid(&path, signer, "the legacy signerName is not allowed via this API version");
        } else {
            signer_name(&mut errors, signer, &path);
        }
        if let Some(seconds) = spec.int("expirationSeconds").filter(|s| *s < 600) {
            errors.invalid(
                &SPEC.field("expirationSeconds"),
                seconds,
                "may not specify a duration less than 600 seconds (10 minutes)",
            );
        }
        conditions(&mut errors, obj, None);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, _new: &Object, _old: &Object) -> Vec<Cause> {
        Vec::new()
    }

    fn prepare_for_status_update(&self, ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
        // approval and denial are for the other subresource
        let keep = |c: &&Value| DECISIONS.contains(&c.text("type"));
        let mut list: Vec<Value> = old.at("status").list("conditions").iter().filter(keep).cloned().collect();
        list.extend(new.at("status").list("conditions").iter().filter(|c| !keep(c)).cloned());
        set_conditions(ctx, new, old, list);
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        conditions(&mut errors, new, Some(old));
        let (now, was) = (new.at("status").text("certificate"), old.at("status").text("certificate"));
        let path = Path::root("status.certificate");
        if !was.is_empty() && now != was {
            errors.forbidden(&path, "updates may not set certificate content if existing certificate is not empty");
        }
        if !now.is_empty() && now != was {
            let bytes = STANDARD.decode(now).unwrap_or_default();
            if !String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") {
                errors.invalid(&path, "<certificate data>", "must contain at least one CERTIFICATE PEM block");
            }
        }
        errors.0
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", obj.at("spec").text("signerName").into())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let duration = spec.int("expirationSeconds").map_or("<none>".into(), age::human);
        let signer = spec.text("signerName");
        vec![
            api::meta::name(obj).into(),
            age::since_creation(obj, now).into(),
            if signer.is_empty() { "<none>" } else { signer }.into(),
            spec.text("username").into(),
            duration.into(),
            decision(obj).into(),
        ]
    }

    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "approval").then_some(&Approval as &dyn Strategy)
    }
}

/// `certificatesigningrequests/approval`: only the conditions change.
struct Approval;

impl Strategy for Approval {
    fn prepare_for_update(&self, ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        let list = new.at("status").list("conditions").to_vec();
        copy_field(new, old, "spec");
        let certificate = old.at("status").at("certificate").clone();
        new["status"] = json!({});
        if !certificate.is_null() {
            new["status"]["certificate"] = certificate;
        }
        set_conditions(ctx, new, old, list);
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        conditions(&mut errors, new, Some(old));
        errors.0
    }
}

/// Sets the conditions, with times where they changed.
fn set_conditions(ctx: &Ctx<'_>, new: &mut Object, old: &Object, mut list: Vec<Value>) {
    for condition in &mut list {
        let was = old.at("status").list("conditions").iter().find(|c| c.text("type") == condition.text("type"));
        if was.is_some_and(|w| same(w, condition)) {
            continue;
        }
        if !condition.has("lastUpdateTime") {
            condition["lastUpdateTime"] = ctx.timestamp().into();
        }
        if !condition.has("lastTransitionTime") {
            let kept = was
                .filter(|w| w.text("status") == condition.text("status"))
                .map(|w| w.at("lastTransitionTime").clone());
            condition["lastTransitionTime"] = kept.unwrap_or_else(|| ctx.timestamp().into());
        }
    }
    if let Some(status) = map_mut(new, "status") {
        match list.is_empty() {
            true => drop(status.as_object_mut().map(|map| map.remove("conditions"))),
            false => status["conditions"] = list.into(),
        }
    }
}

fn request(errors: &mut Errors, given: &Value, path: &Path<'_>) {
    let text = given.as_str().unwrap_or("");
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8_lossy(&bytes);
    if !pem.contains("-----BEGIN CERTIFICATE REQUEST-----") || !pem.contains("-----END CERTIFICATE REQUEST-----") {
        errors.invalid(path, given.clone(), "PEM block type must be CERTIFICATE REQUEST");
    }
}

fn conditions(errors: &mut Errors, obj: &Object, old: Option<&Object>) {
    let (list, path) = (obj.at("status").list("conditions"), Path::root("status.conditions"));
    for (i, condition) in list.iter().enumerate() {
        let (item, kind) = (path.index(i), condition.text("type"));
        if kind.is_empty() {
            errors.required(&item.field("type"), "");
        }
        match condition.text("status") {
            "" => errors.required(&item.field("status"), ""),
            "True" => {}
            status if DECISIONS.contains(&kind) || kind == "Failed" => {
                errors.not_supported(&item.field("status"), status, &["True"]);
            }
            status => errors.one_of(&item.field("status"), status, &["True", "False", "Unknown"]),
        }
        if list[..i].iter().any(|c| c.text("type") == kind) {
            errors.duplicate(&item.field("type"), kind);
        }
    }
    let has = |obj: &Object, kind: &str| obj.at("status").list("conditions").iter().any(|c| c.text("type") == kind);
    if has(obj, "Approved") && has(obj, "Denied") {
        let first = list.iter().position(|c| DECISIONS.contains(&c.text("type"))).unwrap_or(0);
        let other = if list[first].text("type") == "Approved" { "Denied" } else { "Approved" };
        let second = list.iter().position(|c| c.text("type") == other).unwrap_or(0);
        errors.invalid(
            &path.index(second).field("type"),
            other,
            "Approved and Denied conditions are mutually exclusive",
        );
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if old.is_some_and(|o| has(o, kind)) && !has(obj, kind) {
            errors.forbidden(&path, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
}

fn decision(obj: &Object) -> String {
    let has = |kind: &str| obj.at("status").list("conditions").iter().any(|c| c.text("type") == kind);
    let mut text = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !obj.at("status").text("certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}
