//! `networking.k8s.io`.

pub mod ingress;
pub mod ingress_class;
pub mod ip_address;
pub mod network_policy;
pub mod service_cidr;

use crate::field::{Errors, Path};
use crate::names;

/// An error when a text is neither empty nor a path segment; `required` says whether it may be empty.
fn segment(errors: &mut Errors, text: &str, required: bool, path: &Path<'_>) {
    match text {
        "" if required => errors.required(path, ""),
        "" => {}
        text => errors.invalid_each(path, text, names::path_segment(text, false)),
    }
}
