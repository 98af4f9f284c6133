//! `certificates.k8s.io`.

use crate::field::{Errors, Path};
use crate::names;

/// Errors of a signer's name, `example.com/name`.
pub fn signer_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, signer] = parts[..] else {
        return errors.invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
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
