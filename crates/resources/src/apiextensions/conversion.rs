//! How objects are converted between the versions of a definition.

use crate::admissionregistration::webhook_client;
use crate::field::{Errors, Fields, Path, repeated};
use crate::names;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The versions of `ConversionReview` that are understood.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Checks the conversion; `any_bundle`: certificates need not be such.
pub(super) fn check(errors: &mut Errors, spec: &Value, path: &Path<'_>, any_bundle: bool) {
    let of = spec.at("conversion");
    if of.is_null() {
        return;
    }
    let strategy = of.text("strategy");
    if strategy != "None" && spec.flag("preserveUnknownFields") {
        errors.invalid(&path.field("strategy"), strategy, "must be None if spec.preserveUnknownFields is true");
    }
    match strategy {
        "" => errors.required(&path.field("strategy"), ""),
        text => errors.one_of(&path.field("strategy"), text, &["None", "Webhook"]),
    }
    let (config, versions) = (of.at("webhook").at("clientConfig"), of.at("webhook").texts("conversionReviewVersions"));
    let (client, reviews) = (path.field("webhookClientConfig"), path.field("conversionReviewVersions"));
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if !config.is_null() {
            errors.forbidden(&client, why);
        }
        if !versions.is_empty() {
            errors.forbidden(&reviews, why);
        }
        return;
    }
    match config.is_null() {
        true => errors.required(&client, "required when strategy is set to Webhook"),
        false => client_config(errors, config, &client, any_bundle),
    }
    review_versions(errors, &versions, &reviews);
}

fn client_config(errors: &mut Errors, config: &Value, path: &Path<'_>, any_bundle: bool) {
    webhook_client::client_config(errors, config, path);
    let bundle = config.text("caBundle");
    if let (false, Err(why)) = (any_bundle || bundle.is_empty(), bundle_of(bundle)) {
        errors.invalid(&path.field("caBundle"), bundle, &format!("unable to load root certificates: {why}"));
    }
}

/// Whether a bundle holds certificates.
pub(super) fn bundle_of(base64: &str) -> Result<(), String> {
    let text = STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let mut parts = text.split("-----BEGIN CERTIFICATE-----").skip(1).peekable();
    if parts.peek().is_none() {
        return Err("unable to parse bytes as PEM block".into());
    }
    let is_certificate = |part: &str| {
        let body: String = part.split("-----END").next().unwrap_or("").split_whitespace().collect();
        // A certificate is a sequence of ASN.1.
        STANDARD.decode(body).is_ok_and(|der| der.first() == Some(&0x30))
    };
    match parts.all(is_certificate) {
        true => Ok(()),
        false => Err("failed to parse certificate: x509: malformed certificate".into()),
    }
}

fn review_versions(errors: &mut Errors, versions: &[&str], path: &Path<'_>) {
    if versions.is_empty() {
        return errors.required(path, "");
    }
    let twice = repeated(versions.iter());
    for (i, version) in versions.iter().enumerate() {
        if twice[i] {
            errors.invalid(&path.index(i), *version, "duplicate version");
            continue;
        }
        errors.invalid_each(&path.index(i), version, names::dns1035_label(version, false));
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(v)) {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.invalid(path, versions.to_vec(), &why);
    }
}
