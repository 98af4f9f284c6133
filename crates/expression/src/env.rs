//! Environments: which variables an expression may name, and of what type they are.

use crate::decl::DeclType;
use crate::library;
use crate::types::Type;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of the variable whose fields are earlier expressions of a policy.
pub(crate) const COMPOSED: &str = "variables";
/// The type of that variable.
const COMPOSED_TYPE: &str = "kubernetes.variables";
/// The type of a JSON patch operation in mutations.
pub(crate) const JSON_PATCH: &str = "JSONPatch";
/// The type from which mutations build what they apply.
pub(crate) const OBJECT: &str = "Object";

/// Variables, types and libraries; v1.36's base environment at least.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<Variable>,
    objects: BTreeMap<Arc<str>, Arc<DeclType>>,
    composed: BTreeMap<String, (Type, Option<Arc<DeclType>>)>,
    pub(crate) mutation: bool,
    pub(crate) bind: bool,
}

/// A declared variable.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub name: Arc<str>,
    pub r#type: Type,
    pub decl: Option<Arc<DeclType>>,
}

/// What a name stands for.
pub(crate) enum Named {
    Variable(Type, Option<Arc<DeclType>>, Arc<str>),
    /// A type, by its name.
    Type(Type, Arc<str>),
}

impl Env {
    /// The base environment of Kubernetes v1.36, without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a variable.
    #[must_use]
    pub fn variable(self, name: &str, decl: Arc<DeclType>) -> Self {
        let r#type = decl.cel_type();
        self.declare(name, r#type, Some(decl))
    }

    /// Declares a variable that may have no value: `optional_type(T)`.
    #[must_use]
    pub fn optional_variable(self, name: &str, decl: Arc<DeclType>) -> Self {
        let r#type = Type::optional(decl.cel_type());
        self.declare(name, r#type, Some(decl))
    }

    /// Declares a variable of a type that no schema describes.
    #[must_use]
    pub fn variable_type(self, name: &str, r#type: Type) -> Self {
        self.declare(name, r#type, None)
    }

    /// Declares one field of `variables`.
    #[must_use]
    pub fn composed(mut self, name: &str, r#type: Type, decl: Option<Arc<DeclType>>) -> Self {
        if let Some(decl) = &decl {
            decl.objects(&mut self.objects);
        }
        self.composed.insert(name.to_owned(), (r#type, decl));
        self.with_variables()
    }

    /// Declares `variables`, though it may have no field yet.
    #[must_use]
    pub fn with_variables(self) -> Self {
        if self.variables.iter().any(|v| &*v.name == COMPOSED) {
            self
        } else {
            self.declare(COMPOSED, Type::object(COMPOSED_TYPE), None)
        }
    }

    /// Lets expressions make objects and JSON patches.
    #[must_use]
    pub fn with_mutation(mut self) -> Self {
        self.mutation = true;
        self
    }

    /// Adds `cel.bind`.
    #[must_use]
    pub fn with_bind(mut self) -> Self {
        self.bind = true;
        self
    }

    fn declare(mut self, name: &str, r#type: Type, decl: Option<Arc<DeclType>>) -> Self {
        if let Some(decl) = &decl {
            decl.objects(&mut self.objects);
        }
        self.variables.retain(|v| &*v.name != name);
        self.variables.push(Variable { name: name.into(), r#type, decl });
        self
    }

    /// What a name stands for.
    pub(crate) fn lookup(&self, name: &str) -> Option<Named> {
        if let Some(v) = self.variables.iter().find(|v| &*v.name == name) {
            return Some(Named::Variable(v.r#type.clone(), v.decl.clone(), Arc::clone(&v.name)));
        }
        let r#type = match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "string" => Type::String,
            "null_type" => Type::Null,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "type" => Type::Type(Arc::new(Type::Dyn)),
            "optional_type" => Type::optional(Type::Dyn),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            _ => self.named_type(name)?,
        };
        Some(Named::Type(r#type, name.into()))
    }

    fn named_type(&self, name: &str) -> Option<Type> {
        if self.is_struct(name) || self.objects.contains_key(name) {
            return Some(Type::object(name));
        }
        library::find_type(name).map(Type::Opaque)
    }

    /// Whether expressions may make objects of the type.
    pub(crate) fn is_struct(&self, name: &str) -> bool {
        self.mutation
            && (name == JSON_PATCH
                || name == OBJECT
                || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The type of a field of an object type: `Err` when the type is unknown, `Ok(None)` when it lacks the field.
    pub(crate) fn field(&self, object: &str, field: &str) -> Result<Option<Type>, ()> {
        if object == COMPOSED_TYPE {
            return Ok(self.composed.get(field).map(|(r#type, _)| r#type.clone()));
        }
        if let Some(decl) = self.objects.get(object) {
            return Ok(decl.field(field).map(|decl| decl.cel_type()));
        }
        match object {
            JSON_PATCH if self.mutation => Ok(match field {
                "op" | "path" | "from" => Some(Type::String),
                "value" => Some(Type::Dyn),
                _ => None,
            }),
            _ if self.is_struct(object) => Ok(Some(Type::Dyn)),
            _ => Err(()),
        }
    }

    /// The declared type of a field of `variables`.
    pub(crate) fn composed_decl(&self, name: &str) -> Option<&Arc<DeclType>> {
        self.composed.get(name).and_then(|(_, decl)| decl.as_ref())
    }
}
