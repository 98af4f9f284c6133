//! What merging must know about a field.

use std::borrow::Cow;

/// The form of a field's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Anything that is replaced as a whole: numbers, strings, quantities, raw JSON.
    #[default]
    Scalar,
    /// Fields known by [`FieldFact::schema`].
    Struct,
    /// A list; elements are of [`FieldFact::schema`], or scalars when that is empty.
    List,
    /// A map with free keys; values are of [`FieldFact::schema`], or scalars when that is empty.
    Map,
    /// Without a schema: merged by its own form, lists as a whole.
    Untyped,
}

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Owned and replaced as a whole.
    #[default]
    Atomic,
    /// Each value is owned for itself.
    Set,
    /// Elements are known by [`FieldFact::list_map_keys`].
    Map,
}

/// The type of a scalar, as server-side apply checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    String,
    /// An integer or float.
    Numeric,
    /// true or false.
    Boolean,
    /// Any of these (quantities, int-or-string).
    Any,
}

/// Facts about one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldFact {
    /// Form of the value.
    pub shape: Shape,
    /// Schema of the value, or of the elements of a list or map; empty for scalars.
    pub schema: Cow<'static, str>,
    /// Strategic merge: elements merge by key, lists of scalars as sets (`patchStrategy=merge`).
    pub patch_merge: bool,
    /// Strategic merge: `patchStrategy=retainKeys`.
    pub patch_retain_keys: bool,
    /// Strategic merge: `patchStrategy=replace`.
    pub patch_replace: bool,
    /// Strategic merge: key of the elements; empty: none.
    pub patch_merge_key: Cow<'static, str>,
    /// Apply: kind of list.
    pub list_type: ListType,
    /// Apply: keys of the elements of a map list.
    pub list_map_keys: Vec<Cow<'static, str>>,
    /// Apply: a map or struct owned as a whole.
    pub atomic: bool,
}

/// Where merging looks facts up. Schema names mean what the implementation wants them to mean
/// (a definition's name, a path into a custom resource's schema).
pub trait Facts {
    /// Facts of a field of a schema; `None`: there is no such field.
    fn field(&self, schema: &str, field: &str) -> Option<FieldFact>;

    /// Type of a scalar field, or of the scalars a list or map holds; `None`: not checked.
    fn scalar(&self, _schema: &str, _field: &str) -> Option<Scalar> {
        None
    }

    /// The elements of a list or map where their schema names no struct but a list or map again, with their scalars.
    fn element(&self, _schema: &str) -> Option<(FieldFact, Option<Scalar>)> {
        None
    }

    /// The object of a schema before anything is set, with what its type always writes (`spec: {}`):
    /// nobody owns that.
    fn empty(&self, _schema: &str) -> serde_json::Value {
        serde_json::Value::Object(serde_json::Map::new())
    }

    /// Fields that a write to the (sub)resource resets whatever the client sends (`&["status"]`): no
    /// manager owns them.
    fn reset_fields(&self, _schema: &str, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }

    /// Whether a struct of the schema is owned as a whole, as an element of a list or map.
    fn is_atomic(&self, _schema: &str) -> bool {
        false
    }

    /// Default of a list-map key (`protocol` is `TCP`), used when an element lacks it.
    fn key_default(&self, _schema: &str, _key: &str) -> Option<serde_json::Value> {
        None
    }
}

/// Facts of an object without a schema: everything merges by its own form.
pub struct Untyped;

impl Facts for Untyped {
    fn field(&self, _schema: &str, _field: &str) -> Option<FieldFact> {
        Some(FieldFact { shape: Shape::Untyped, ..FieldFact::default() })
    }
}
