//! The requests of a claim, and references to them: `request` or `request/subrequest`.

use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::Unique;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const REFERENCES_MAX: usize = 32;
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Names of requests, each with those of its subrequests.
pub(super) struct Requests<'a>(HashMap<&'a str, HashSet<&'a str>>);

impl<'a> Requests<'a> {
    /// Those of a claim's `devices`.
    pub(super) fn of(devices: &'a Value) -> Self {
        let subs = |request: &'a Value| request.list("firstAvailable").iter().map(|sub| sub.text("name")).collect();
        Self(devices.list("requests").iter().map(|request| (request.text("name"), subs(request))).collect())
    }

    fn has(&self, reference: &str) -> bool {
        let (request, sub) = reference.split_once('/').map_or((reference, None), |(name, sub)| (name, Some(sub)));
        self.0.get(request).is_some_and(|subs| sub.is_none_or(|sub| subs.contains(sub)))
    }

    /// Errors of the requests that something is for.
    pub(super) fn references(&self, errors: &mut Errors, of: &Value, path: &Path<'_>) {
        if !errors.at_most(path, of.list("requests"), REFERENCES_MAX) {
            return;
        }
        let references = of.texts("requests");
        references.iter().enumerate().for_each(|(i, name)| self.reference(errors, name, &path.index(i)));
        let mut names = Unique::default();
        references.iter().enumerate().for_each(|(i, name)| names.add(errors, name, &path.index(i)));
    }

    /// Errors of one reference.
    pub(super) fn reference(&self, errors: &mut Errors, name: &str, path: &Path<'_>) {
        if name.split('/').count() > 2 {
            return errors.invalid(path, name, NO_REQUEST);
        }
        for part in name.split('/') {
            errors.invalid_each(path, part, names::dns1123_label(part, false));
        }
        if !self.has(name) {
            errors.invalid(path, name, NO_REQUEST);
        }
    }
}
