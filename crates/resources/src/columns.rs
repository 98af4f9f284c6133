//! Columns that most kinds share.

use api::table::Column;
use serde_json::Value;

/// The name.
pub const NAME: Column = Column::name().describe("Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names");

/// The age.
pub const AGE: Column = Column::string("Age").describe("CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata");

/// A text, `<none>` when empty.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

/// A text, `<unset>` when empty.
pub fn or_unset(text: &str) -> Value {
    if text.is_empty() { "<unset>" } else { text }.into()
}
