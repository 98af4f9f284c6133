//! Projected volumes.

use super::{env, volume};
use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::{self, Check, each};
use serde_json::Value;
use std::collections::HashSet;

const CONFLICT: &str = "conflicting duplicate paths";
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// Errors of a projected volume.
pub fn projected(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    rules::check(errors, of, path, &[("defaultMode", volume::FILE_MODE)]);
    let mut paths = HashSet::new();
    let list = path.field("sources");
    for (i, source) in of.list("sources").iter().enumerate() {
        let item = list.index(i);
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        let mut count = 0;
        for kind in kinds.into_iter().filter(|k| source.has(k)) {
            count += 1;
            let (of, path_of) = (source.at(kind), item.field(kind));
            match kind {
                "secret" | "configMap" => items(errors, of, &mut paths, path, &path_of),
                "downwardAPI" => downward(errors, of, &mut paths, path, &path_of),
                "serviceAccountToken" => token(errors, of, path, &path_of),
                "clusterTrustBundle" => trust_bundle(errors, of, &mut paths, path, &path_of),
                _ => certificate(errors, of, &mut paths, path, &path_of),
            }
        }
        if count > 1 {
            errors.forbidden(&item, "may not specify more than 1 volume type per source");
        }
    }
}

fn claim<'a>(errors: &mut Errors, text: &'a str, shown: &str, paths: &mut HashSet<&'a str>, path: &Path<'_>) {
    if !paths.insert(text) {
        errors.invalid(path, shown, CONFLICT);
    }
}

fn items<'a>(errors: &mut Errors, of: &'a Value, paths: &mut HashSet<&'a str>, volume: &Path<'_>, path: &Path<'_>) {
    rules::check(errors, of, path, &[("name", Check::Given(""))]);
    each(of, "items", path, |item, path| {
        volume::key_to_path(errors, item, path);
        if !item.text("path").is_empty() {
            claim(errors, item.text("path"), of.text("name"), paths, volume);
        }
    });
}

fn downward<'a>(errors: &mut Errors, of: &'a Value, paths: &mut HashSet<&'a str>, volume: &Path<'_>, path: &Path<'_>) {
    for file in of.list("items") {
        env::downward_file(errors, file, path);
        if !file.text("path").is_empty() {
            claim(errors, file.text("path"), file.text("path"), paths, volume);
        }
    }
}

/// Upstream reports the path of a token at the volume, not at the source.
fn token(errors: &mut Errors, of: &Value, volume: &Path<'_>, path: &Path<'_>) {
    let seconds = of.int("expirationSeconds").unwrap_or(0);
    if seconds < 600 {
        errors.invalid(&path.field("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        let text = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(&path.field("expirationSeconds"), seconds, text);
    }
    match of.text("path") {
        "" => errors.required(&volume.field("path"), ""),
        _ => volume::local_path(errors, of.at("path"), &volume.field("path")),
    }
}

fn trust_bundle<'a>(
    errors: &mut Errors,
    of: &'a Value,
    paths: &mut HashSet<&'a str>,
    volume: &Path<'_>,
    path: &Path<'_>,
) {
    match (of.has("name"), of.has("signerName")) {
        (true, true) => errors.invalid(path, of.clone(), "only one of name and signerName may be used"),
        (true, false) => one_bundle(errors, of, path),
        (false, true) => {
            rules::check(errors, of, path, &[("signerName", Check::Given("must be a valid signer name"))]);
            crate::certificates::signer_name(errors, of.text("signerName"), &path.field("signerName"));
            crate::metadata::label_selector(errors, of.at("labelSelector"), &path.field("labelSelector"));
        }
        (false, false) => errors.required(path, "either name or signerName must be specified"),
    }
    rules::check(errors, of, path, &[("path", Check::Given("")), ("path", Check::By(volume::local_path))]);
    claim(errors, of.text("path"), of.text("path"), paths, volume);
}

/// A bundle that is chosen by name: what precedes the last colon is its signer's.
fn one_bundle(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let name = of.text("name");
    rules::check(errors, of, path, &[("name", Check::Given("must be a valid object name"))]);
    for text in names::subdomain(name.rsplit(':').next().unwrap_or("")) {
        errors.invalid(&path.field("name"), name, &format!("not a valid clustertrustbundlename: {text}"));
    }
    if of.has("labelSelector") {
        let text = "labelSelector must be unset if name is specified";
        errors.invalid(&path.field("labelSelector"), of.at("labelSelector").clone(), text);
    }
}

fn certificate<'a>(
    errors: &mut Errors,
    of: &'a Value,
    paths: &mut HashSet<&'a str>,
    volume: &Path<'_>,
    path: &Path<'_>,
) {
    crate::certificates::signer_name(errors, of.text("signerName"), &path.field("signerName"));
    errors.supported(&path.field("keyType"), of.text("keyType"), &KEY_TYPES);
    let max = if of.text("signerName").starts_with("kubernetes.io/") { 86_400 } else { 91 * 86_400 };
    if let Some(seconds) = of.int("maxExpirationSeconds") {
        let path = path.field("maxExpirationSeconds");
        if seconds < 3600 {
            errors.invalid(&path, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > max {
            errors.invalid(&path, seconds, &format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
    let fields = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for field in fields.into_iter().filter(|f| !of.text(f).is_empty()) {
        volume::local_path(errors, of.at(field), &path.field(field));
        claim(errors, of.text(field), of.text(field), paths, volume);
    }
    if fields.iter().all(|f| of.text(f).is_empty()) {
        errors.required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}
