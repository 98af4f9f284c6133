//! Objects as webhooks and policies see them: in the version that their rule names.

use super::Attributes;
use crate::registry::Resource;
use crate::registry::decode::canonical_quantity;
use crate::registry::facts::BuiltIn;
use crate::subresources::scale;
use api::{Gvk, Object, Status};
use serde_json::Value;

/// The kind of what is written to a resource or one of its subresources.
pub fn kind(resource: &Resource, subresource: &str) -> Gvk {
    match resource.subresource(subresource) {
        Some(fact) if !fact.kind.is_empty() && fact.kind != resource.kind => {
            Gvk::new(fact.kind_group, fact.kind_version, fact.kind)
        }
        _ => resource.gvk(),
    }
}

/// What a request's objects are shown as.
pub struct Version<'a> {
    resource: &'a Resource,
    /// Kind shown.
    pub kind: Gvk,
    form: Form,
}

enum Form {
    /// The object itself.
    Object,
    /// The Scale of the object.
    Scale,
    /// A kind of the subresource's own.
    Other,
}

impl<'a> Version<'a> {
    /// The form of a request's objects in a version of its resource.
    pub fn new(a: &Attributes<'_>, resource: &'a Resource) -> Self {
        let kind = kind(resource, a.subresource);
        let form = match a.subresource {
            "scale" => Form::Scale,
            _ if kind.kind == resource.kind => Form::Object,
            _ => Form::Other,
        };
        Self { resource, kind, form }
    }

    /// Shows an object.
    pub async fn show(&self, a: &Attributes<'_>, object: &Object) -> Result<Object, Status> {
        let mut shown = match self.form {
            Form::Scale => return scale::show(a.resource, object),
            Form::Other => object.clone(),
            Form::Object => {
                let mut stored = a.resource.to_stored(object.clone());
                if let Some(conversion) = self.resource.convert {
                    (conversion.from_stored)(&mut stored);
                }
                translated(self.resource, stored).await?
            }
        };
        self.set_type(&mut shown);
        Ok(shown)
    }

    /// Merges a configuration into a shown object, as an apply without an owner.
    pub fn merge(&self, a: &Attributes<'_>, shown: &Object, configuration: &Value) -> Result<Object, String> {
        let mut configuration = configuration.clone();
        self.set_type(&mut configuration);
        let fact = self.resource.subresource(a.subresource).and_then(|fact| fact.schema());
        match (&self.form, fact) {
            (Form::Object, _) => {
                merge::merge_configuration(shown, &configuration, self.resource.schema, self.resource.facts())
            }
            (_, Some(schema)) => merge::merge_configuration(shown, &configuration, schema.name(), &BuiltIn),
            (_, None) => Err(format!("no corresponding type for {}", self.kind.kind)),
        }
    }

    fn set_type(&self, object: &mut Object) {
        if let Value::Object(map) = object {
            map.insert("apiVersion".into(), self.kind.api_version().into());
            map.insert("kind".into(), self.kind.kind.clone().into());
        }
    }

    /// Decodes and defaults what a webhook or policy has made of a shown object.
    pub fn decode(&self, a: &Attributes<'_>, shown: &mut Object) -> Result<(), Status> {
        let fact = self.resource.subresource(a.subresource).and_then(|fact| fact.schema());
        let decoded = match (&self.form, fact) {
            (Form::Object, _) => self.resource.decode(shown),
            (_, Some(schema)) => schema::decode(schema.name(), shown, canonical_quantity),
            (_, None) => Ok(Vec::new()),
        };
        decoded.map_err(Status::internal)?;
        if let Form::Object = self.form {
            self.set_type(shown);
            self.resource.strategy.default(shown);
            schema::complete(self.resource.schema, shown);
        }
        Ok(())
    }

    /// Gives a changed object back in the version of the request.
    pub async fn take_back(&self, a: &Attributes<'_>, shown: Object, object: &mut Object) -> Result<(), Status> {
        match self.form {
            Form::Scale => {
                let replicas = shown.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
                a.resource.strategy.set_scale(object, replicas);
            }
            Form::Other => *object = shown,
            Form::Object => {
                let mut stored = self.resource.to_stored(shown);
                if let Some(conversion) = a.resource.convert {
                    (conversion.from_stored)(&mut stored);
                }
                stored = translated(a.resource, stored).await?;
                a.resource.set_type(&mut stored);
                *object = stored;
            }
        }
        Ok(())
    }
}

/// A custom object in the version of its resource, by the webhook of its definition where it has one.
async fn translated(to: &Resource, object: Object) -> Result<Object, Status> {
    match to.custom {
        Some(_) => to.store.translated(object).await.map_err(|status| Status::internal(status.message)),
        None => Ok(object),
    }
}
