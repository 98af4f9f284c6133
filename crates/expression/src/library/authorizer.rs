//! `authorizer`: asks whether a user may do something.
//!
//! The API server implements [`Authorizer`]; the functions here only gather what it is asked.

use super::{Overload, opaque, text};
use crate::cost::{CHECK, Cost};
use crate::error::EvalError;
use crate::value::{Opaque, Value};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The type of the variable `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of the variable `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

pub(super) static TABLE: &[Overload] = &[
    Overload::new(
        "path",
        "kubernetes.authorization.Authorizer::path(string) -> kubernetes.authorization.PathCheck",
        Cost::One,
        path,
    ),
    Overload::new(
        "group",
        "kubernetes.authorization.Authorizer::group(string) -> kubernetes.authorization.GroupCheck",
        Cost::One,
        group,
    ),
    Overload::new(
        "serviceAccount",
        "kubernetes.authorization.Authorizer::serviceAccount(string, string) -> kubernetes.authorization.Authorizer",
        Cost::One,
        service_account,
    ),
    Overload::new(
        "resource",
        "kubernetes.authorization.GroupCheck::resource(string) -> kubernetes.authorization.ResourceCheck",
        Cost::One,
        resource,
    ),
    Overload::new(
        "subresource",
        "kubernetes.authorization.ResourceCheck::subresource(string) -> kubernetes.authorization.ResourceCheck",
        Cost::One,
        |args| narrowed(args, |attributes, text| attributes.subresource = text),
    ),
    Overload::new(
        "namespace",
        "kubernetes.authorization.ResourceCheck::namespace(string) -> kubernetes.authorization.ResourceCheck",
        Cost::One,
        |args| narrowed(args, |attributes, text| attributes.namespace = text),
    ),
    Overload::new(
        "name",
        "kubernetes.authorization.ResourceCheck::name(string) -> kubernetes.authorization.ResourceCheck",
        Cost::One,
        |args| narrowed(args, |attributes, text| attributes.name = text),
    ),
    Overload::new(
        "fieldSelector",
        "kubernetes.authorization.ResourceCheck::fieldSelector(string) -> kubernetes.authorization.ResourceCheck",
        Cost::Selector,
        |args| narrowed(args, |attributes, text| attributes.field_selector = text),
    ),
    Overload::new(
        "labelSelector",
        "kubernetes.authorization.ResourceCheck::labelSelector(string) -> kubernetes.authorization.ResourceCheck",
        Cost::Selector,
        |args| narrowed(args, |attributes, text| attributes.label_selector = text),
    ),
    Overload::new(
        "check",
        "kubernetes.authorization.PathCheck::check(string) -> kubernetes.authorization.Decision",
        Cost::Fixed(CHECK),
        check,
    ),
    Overload::new(
        "check",
        "kubernetes.authorization.ResourceCheck::check(string) -> kubernetes.authorization.Decision",
        Cost::Fixed(CHECK),
        check,
    ),
    Overload::new("allowed", "kubernetes.authorization.Decision::allowed() -> bool", Cost::One, |args| {
        decision(args, |d| Value::Bool(d.allowed))
    }),
    Overload::new("reason", "kubernetes.authorization.Decision::reason() -> string", Cost::One, |args| {
        decision(args, |d| Value::text(d.reason.as_str()))
    }),
    Overload::new("errored", "kubernetes.authorization.Decision::errored() -> bool", Cost::One, |args| {
        decision(args, |d| Value::Bool(d.error.is_some()))
    }),
    Overload::new("error", "kubernetes.authorization.Decision::error() -> string", Cost::One, |args| {
        decision(args, |d| Value::text(d.error.as_deref().unwrap_or_default()))
    }),
];

/// Decides what users may do. Called in the middle of an evaluation, so it must not wait.
pub trait Authorizer: Send + Sync {
    /// Decides about one request.
    fn authorize(&self, attributes: &Attributes) -> Decision;
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else authentication said.
    pub extra: Vec<(String, Vec<String>)>,
}

/// A request that is asked about. A path or a resource is set, never both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who asks.
    pub user: Arc<User>,
    /// The verb.
    pub verb: String,
    /// The path of a request that concerns no resource.
    pub path: String,
    /// The API group; the version is always `*`.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace; empty for all or none.
    pub namespace: String,
    /// The name; empty for all.
    pub name: String,
    /// A field selector as written.
    pub field_selector: String,
    /// A label selector as written.
    pub label_selector: String,
}

impl Attributes {
    /// Whether the request concerns a resource.
    pub fn is_resource(&self) -> bool {
        self.path.is_empty()
    }
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong in deciding.
    pub error: Option<String>,
}

/// The stages on the way to a check.
#[derive(Clone)]
struct Stage {
    kind: &'static str,
    authorizer: Arc<dyn Authorizer>,
    attributes: Attributes,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.kind, self.attributes)
    }
}

impl Opaque for Stage {
    fn type_name(&self) -> &'static str {
        self.kind
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| other.kind == self.kind && other.attributes == self.attributes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Opaque for Decision {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The value of the variable `authorizer`.
pub fn authorizer(authorizer: Arc<dyn Authorizer>, user: Arc<User>) -> Value<'static> {
    Value::opaque(Stage { kind: AUTHORIZER, authorizer, attributes: Attributes { user, ..Attributes::default() } })
}

/// The value of `authorizer.requestResource`: a check of the resource the request is about. User and verb of `resource` do not count.
pub fn request_resource(authorizer: Arc<dyn Authorizer>, user: Arc<User>, resource: Attributes) -> Value<'static> {
    Value::opaque(Stage { kind: RESOURCE_CHECK, authorizer, attributes: Attributes { user, ..resource } })
}

fn stage<'a>(
    args: &[Value<'a>],
    kind: &'static str,
    change: impl FnOnce(&mut Attributes),
) -> Result<Value<'a>, EvalError> {
    let mut next = opaque::<Stage>(args, 0)?.clone();
    next.kind = kind;
    change(&mut next.attributes);
    Ok(Value::opaque(next))
}

fn path<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let path = text(args, 1)?;
    if path.trim().is_empty() {
        return Err(EvalError::new("path must not be empty"));
    }
    stage(args, "kubernetes.authorization.PathCheck", |attributes| attributes.path = path.to_owned())
}

fn group<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let group = text(args, 1)?;
    stage(args, "kubernetes.authorization.GroupCheck", |attributes| attributes.group = group.to_owned())
}

fn resource<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let resource = text(args, 1)?;
    if resource.trim().is_empty() {
        return Err(EvalError::new("resource must not be empty"));
    }
    stage(args, RESOURCE_CHECK, |attributes| attributes.resource = resource.to_owned())
}

fn narrowed<'a>(args: &[Value<'a>], change: fn(&mut Attributes, String)) -> Result<Value<'a>, EvalError> {
    let text = text(args, 1)?.to_owned();
    stage(args, RESOURCE_CHECK, |attributes| change(attributes, text))
}

fn service_account<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    let is_label = |text: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(EvalError::new("Invalid service account name"));
    }
    if namespace.len() > 63 || !is_label(namespace) {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let user = User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
        ..User::default()
    };
    stage(args, AUTHORIZER, |attributes| attributes.user = Arc::new(user))
}

fn check<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (stage, verb) = (opaque::<Stage>(args, 0)?, text(args, 1)?);
    let attributes = Attributes { verb: verb.to_owned(), ..stage.attributes.clone() };
    Ok(Value::opaque(stage.authorizer.authorize(&attributes)))
}

fn decision<'a>(args: &[Value<'a>], get: fn(&Decision) -> Value<'static>) -> Result<Value<'a>, EvalError> {
    opaque(args, 0).map(get)
}
