//! `certificates.k8s.io`.

mod request;

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, drop_empty, items_mut, map_mut, repeated, set_default};
use crate::{Ctx, MetadataChecks, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;

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
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.too_long(path, names::SUBDOMAIN_MAX);
    }
    first_wrong_label(errors, domain, names::label, path);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    // each may be as long as a whole name
    first_wrong_label(errors, signer, names::subdomain, path);
    if name.len() > 571 {
        errors.too_long(path, 571);
    }
}

/// Errors of the first label that breaks a rule; those of others would tell nothing new.
fn first_wrong_label(errors: &mut Errors, name: &str, rule: names::TextRule, path: &Path<'_>) {
    let mut wrong = name.split('.').map(|label| (label, rule(label))).filter(|(_, texts)| !texts.is_empty());
    if let Some((label, texts)) = wrong.next() {
        texts.iter().for_each(|text| errors.invalid(path, name, &format!("validating label {label:?}: {text}")));
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
        check_request(&mut errors, spec.at("request"), &SPEC.field("request"));
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
        // Approval and denial are for the other subresource: what of them is kept cannot be changed, and what is added or
        // removed is told of by validation.
        for kind in DECISIONS {
            let was: Vec<&Value> = of_kind(old, kind).collect();
            if of_kind(new, kind).count() == was.len() {
                let now = conditions_mut(new).filter(|condition| condition.text("type") == kind);
                now.zip(was).for_each(|(now, was)| *now = was.clone());
            }
        }
        stamp(ctx, new, old);
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        conditions(&mut errors, new, Some(old));
        let path = Path::root("status.certificate");
        let (now, was) = (new.at("status").text("certificate"), old.at("status").text("certificate"));
        if now != was && wrong_certificate(was).is_none() {
            let wrong = wrong_certificate(now);
            wrong.into_iter().for_each(|why| errors.invalid(&path, "<certificate data>", &why));
        }
        removed_conditions(&mut errors, new, old);
        for kind in DECISIONS {
            if of_kind(new, kind).count() > of_kind(old, kind).count() {
                errors.forbidden(&CONDITIONS, &format!("updates may not add a condition of type {kind:?}"));
            }
        }
        if now != was && !was.is_empty() {
            errors.forbidden(&path, "updates may not modify existing certificate content");
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
        stamp(ctx, new, old);
        copy_field(new, old, "spec");
        let given = new.at("status").at("conditions").clone();
        copy_field(new, old, "status");
        if let Some(status) = map_mut(new, "status") {
            status["conditions"] = given;
            drop_empty(status, "conditions");
        }
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        conditions(&mut errors, new, Some(old));
        removed_conditions(&mut errors, new, old);
        errors.0
    }
}

fn conditions_mut(obj: &mut Object) -> impl Iterator<Item = &mut Value> {
    obj.get_mut("status").into_iter().flat_map(|status| items_mut(status, "conditions"))
}

/// The conditions of a type; one that is not `Approved`, `Denied` or `Failed` may come more than once.
fn of_kind<'a>(obj: &'a Object, kind: &str) -> impl Iterator<Item = &'a Value> {
    obj.at("status").list("conditions").iter().filter(move |condition| condition.text("type") == kind)
}

/// Gives times to the conditions that have none.
fn stamp(ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
    let (now, path) = (ctx.timestamp(), "lastTransitionTime");
    // the first of a type and status
    let mut since = HashMap::new();
    for was in old.at("status").list("conditions").iter().filter(|was| was.has(path)) {
        since.entry((was.text("type"), was.text("status"))).or_insert(was.at(path));
    }
    for condition in conditions_mut(new) {
        set_default(condition, "lastUpdateTime", now.clone());
        let kept = since.get(&(condition.text("type"), condition.text("status")));
        let time = kept.map_or_else(|| now.clone().into(), |time| (*time).clone());
        set_default(condition, path, time);
    }
    if let Some(status) = map_mut(new, "status") {
        drop_empty(status, "conditions");
    }
}

fn check_request(errors: &mut Errors, given: &Value, path: &Path<'_>) {
    let text = given.as_str().unwrap_or("");
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8_lossy(&bytes);
    if let Some(why) = request::error(&pem) {
        errors.invalid(path, given.clone(), &why);
    }
}

const CONDITIONS: Path<'_> = Path::root("status.conditions");

/// Errors of the conditions; what is wrong in the old object already is let pass.
fn conditions(errors: &mut Errors, obj: &Object, old: Option<&Object>) {
    let of = |obj: &Object| -> Vec<String> {
        obj.at("status").list("conditions").iter().map(|condition| condition.text("type").to_owned()).collect()
    };
    let (list, kinds, was) = (obj.at("status").list("conditions"), of(obj), old.map_or_else(Vec::new, of));
    let (had_twice, had_empty) = (repeated(was.iter()).contains(&true), was.iter().any(String::is_empty));
    let had_both = DECISIONS.iter().all(|kind| was.iter().any(|was| was == kind));
    let twice = repeated(kinds.iter());
    let first = DECISIONS.map(|decision| kinds.iter().position(|kind| kind == decision));
    for (i, (condition, kind)) in list.iter().zip(&kinds).enumerate() {
        let item = CONDITIONS.index(i);
        if kind.is_empty() && !had_empty {
            errors.required(&item.field("type"), "");
        }
        match condition.text("status") {
            "" => errors.required(&item.field("status"), ""),
            status if DECISIONS.contains(&kind.as_str()) || kind == "Failed" => {
                errors.one_of(&item.field("status"), status, &["True"]);
            }
            status => errors.one_of(&item.field("status"), status, &["False", "True", "Unknown"]),
        }
        let other = DECISIONS.iter().position(|decision| decision == kind).and_then(|decision| first[1 - decision]);
        if other.is_some_and(|other| other < i) && !had_both {
            errors.invalid(&CONDITIONS, kind.as_str(), "Approved and Denied conditions are mutually exclusive");
        }
        if twice[i] && !had_twice {
            errors.duplicate(&item.field("type"), kind.as_str());
        }
    }
}

fn removed_conditions(errors: &mut Errors, new: &Object, old: &Object) {
    for kind in ["Approved", "Denied", "Failed"] {
        if of_kind(new, kind).count() < of_kind(old, kind).count() {
            errors.forbidden(&CONDITIONS, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
}

/// What is wrong with the PEM blocks of an issued certificate; what is in them is for the signer to know.
fn wrong_certificate(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8_lossy(&bytes);
    let (mut begun, mut headers, mut none) = (None, false, !pem.is_empty());
    for line in pem.lines().map(str::trim_end) {
        let marked = |mark: &str| line.strip_prefix(mark)?.strip_suffix("-----");
        if let Some(kind) = marked("-----BEGIN ") {
            (begun, headers) = (Some(kind), false);
        } else if let Some(kind) = marked("-----END ").filter(|kind| begun == Some(kind)) {
            match kind {
                "CERTIFICATE" if headers => return Some("no PEM block headers are permitted".into()),
                "CERTIFICATE" => (begun, none) = (None, false),
                other => return Some(format!("only CERTIFICATE PEM blocks are allowed, found {other:?}")),
            }
        } else {
            headers |= line.contains(':');
        }
    }
    none.then(|| "must contain at least one CERTIFICATE PEM block".into())
}

/// What became of a request, in a word or several.
fn decision(obj: &Object) -> String {
    let has = |kind: &&str| of_kind(obj, kind).next().is_some();
    let decided = ["Denied", "Approved"].into_iter().find(has).unwrap_or("Pending");
    let then = [("Failed", has(&"Failed")), ("Issued", !obj.at("status").text("certificate").is_empty())];
    let words = then.into_iter().filter(|(_, so)| *so).map(|(word, _)| word);
    std::iter::once(decided).chain(words).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: Vec<Cause>) -> Vec<String> {
        errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn request(kinds: &[&str], certificate: &str) -> Object {
        let list: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        json!({"status": {"conditions": list, "certificate": STANDARD.encode(certificate)}})
    }

    #[test]
    fn names_of_signers() {
        let check = |name: &str, want: &[&str]| {
            let mut errors = Errors::default();
            signer_name(&mut errors, name, &Path::root("x"));
            let got = texts(errors.0);
            let starts = got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.starts_with(want));
            assert!(starts, "{got:?}");
        };
        check("a.b/c.d", &[]);
        check("a..b/c", &["x: Invalid value: \"a..b\": validating label \"\": a lowercase RFC 1123 label must"]);
        check(
            "A.B/C.D",
            &[
                "x: Invalid value: \"A.B\": validating label \"A\": a lowercase RFC 1123 label must",
                "x: Invalid value: \"C.D\": validating label \"C\": a lowercase RFC 1123 subdomain must",
            ],
        );
        let long = "x".repeat(64);
        check(
            &format!("{long}.b/{long}"),
            &[&format!(
                "x: Invalid value: \"{long}.b\": validating label \"{long}\": must be no more than 63 characters"
            )],
        );
        check(&format!("a.b/{}", "x".repeat(253)), &[]);
    }

    #[test]
    fn only_the_approval_decides_and_what_is_issued_stays() {
        let now = Timestamp::UNIX_EPOCH;
        let ctx = Ctx { user: "u", groups: &[], now, dry_run: false };
        let check = |mut new: Object, old: Object, want: &[&str]| {
            CertificateSigningRequest.prepare_for_status_update(&ctx, &mut new, &old);
            assert_eq!(texts(CertificateSigningRequest.validate_status_update(&ctx, &new, &old)), want);
        };
        let of = |kinds: &[&str]| request(kinds, "");
        let (add, remove) = (
            "status.conditions: Forbidden: updates may not add",
            "status.conditions: Forbidden: updates may not remove",
        );
        check(of(&["Approved"]), of(&[]), &[&format!("{add} a condition of type \"Approved\"")]);
        check(of(&["Failed"]), of(&["Approved"]), &[&format!("{remove} a condition of type \"Approved\"")]);
        let both =
            [format!("{remove} a condition of type \"Approved\""), format!("{add} a condition of type \"Denied\"")];
        check(of(&["Denied"]), of(&["Approved"]), &both.each_ref().map(String::as_str));
        check(of(&["Failed", "Approved"]), of(&["Approved"]), &[]);
        let changed = json!({"status": {"conditions": [{"type": "Approved", "status": "False"}]}});
        check(changed, of(&["Approved"]), &[]);

        let pem = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        let (certificate, value) =
            (pem("CERTIFICATE", "AAAA"), "status.certificate: Invalid value: \"<certificate data>\"");
        let check = |text: &str, was: &str, want: &[&str]| check(request(&[], text), request(&[], was), want);
        check(&certificate, "", &[]);
        check("x", "", &[&format!("{value}: must contain at least one CERTIFICATE PEM block")]);
        check(&pem("FOO", "AAAA"), "", &[&format!("{value}: only CERTIFICATE PEM blocks are allowed, found \"FOO\"")]);
        check(&pem("CERTIFICATE", "a: b\n\nAAAA"), "", &[&format!("{value}: no PEM block headers are permitted")]);
        let kept = "status.certificate: Forbidden: updates may not modify existing certificate content";
        check(&pem("CERTIFICATE", "BBBB"), &certificate, &[kept]);
        check("", &certificate, &[kept]);
    }

    #[test]
    fn a_request_is_approved_or_denied() {
        let mut errors = Errors::default();
        conditions(&mut errors, &request(&["Approved", "Denied", "Approved"], ""), None);
        let exclusive = "Approved and Denied conditions are mutually exclusive";
        assert_eq!(
            texts(errors.0),
            [
                format!("status.conditions: Invalid value: \"Denied\": {exclusive}"),
                format!("status.conditions: Invalid value: \"Approved\": {exclusive}"),
                "status.conditions[2].type: Duplicate value: \"Approved\"".to_owned(),
            ]
        );
        for (kinds, certificate, want) in [
            (&[][..], "", "Pending"),
            (&["Approved"], "x", "Approved,Issued"),
            (&["Approved", "Denied", "Failed"], "x", "Denied,Failed,Issued"),
        ] {
            assert_eq!(decision(&request(kinds, certificate)), want);
        }
    }
}
