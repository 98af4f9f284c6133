//! Columns that most kinds share.

use api::table::Column;
use serde_json::Value;

/// The name.
pub const NAME: Column = Column::name().field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "name");

/// The age.
pub const AGE: Column =
    Column::string("Age").field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp");

/// The names of a template's containers.
pub const CONTAINERS: Column = Column::string("Containers").describe("Names of each container in the template.");

/// The images of a template's containers.
pub const IMAGES: Column = Column::string("Images").describe("Images referenced by each container in the template.");

/// A text, `<none>` when empty.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

/// A text, `<unset>` when empty.
pub fn or_unset(text: &str) -> Value {
    if text.is_empty() { "<unset>" } else { text }.into()
}
