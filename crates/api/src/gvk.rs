//! Group, version, kind and resource.

use std::fmt;

/// A group and version, `apps/v1`; the core group is empty and prints as `v1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group, empty for core.
    pub group: String,
    /// Version within the group.
    pub version: String,
}

impl GroupVersion {
    /// Builds a group version.
    pub fn new(group: &str, version: &str) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Parses an `apiVersion`; `None` when it has more than one slash or is empty.
    pub fn parse(api_version: &str) -> Option<Self> {
        let mut parts = api_version.split('/');
        match (parts.next()?, parts.next(), parts.next()) {
            ("", ..) => None,
            (version, None, _) => Some(Self::new("", version)),
            (group, Some(version), None) => Some(Self::new(group, version)),
            _ => None,
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// API group, empty for core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind, in CamelCase.
    pub kind: String,
}

impl Gvk {
    /// Builds a group version kind.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The `apiVersion` this kind is written with.
    pub fn api_version(&self) -> String {
        GroupVersion::new(&self.group, &self.version).to_string()
    }
}

/// Group, version and resource (plural, lower case).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// API group, empty for core.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
}

impl Gvr {
    /// Builds a group version resource.
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// `deployments.apps`, or `pods` for the core group, as messages name a resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_versions_parse_and_print() {
        for (text, want) in [("v1", Some(("", "v1"))), ("apps/v1", Some(("apps", "v1"))), ("a/b/c", None), ("", None)] {
            assert_eq!(GroupVersion::parse(text), want.map(|(g, v)| GroupVersion::new(g, v)), "{text}");
        }
        assert_eq!(GroupVersion::new("apps", "v1").to_string(), "apps/v1");
    }
}
