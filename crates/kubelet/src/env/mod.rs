//! The environment of a container: services, envFrom, env with its sources, in that order of precedence.

pub mod expansion;
pub mod field_ref;
pub mod services;

use crate::context::Context;
use crate::format;
use crate::pod::PodExt;
use crate::volumes::MountedVolumes;
use api::k8s::core::v1::{Container, EnvVarSource, Pod};
use field_ref::Facts;
use std::collections::{BTreeMap, HashMap};

/// Environment variables in the order they were defined; names are unique.
pub type Environment = Vec<(String, String)>;

struct Builder<'a> {
    ctx: &'a Context,
    pod: &'a Pod,
    container: &'a Container,
    facts: &'a Facts<'a>,
    volumes: &'a MountedVolumes,
    services: BTreeMap<String, String>,
    out: Environment,
    /// Where each name is in `out`: there may be tens of thousands.
    places: HashMap<String, usize>,
}

/// Makes the environment of a container. The error is the message of `CreateContainerConfigError`.
pub async fn make(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
    volumes: &MountedVolumes,
) -> Result<Environment, String> {
    if !ctx.services.has_synced() {
        return Err("services have not yet been read at least once, cannot construct envvars".into());
    }
    let links = pod.spec().enable_service_links.unwrap_or(true);
    let services = services::environment(&ctx.services.list(), pod.namespace(), links);
    let mut builder = Builder { ctx, pod, container, facts, volumes, services, out: Vec::new(), places: HashMap::new() };
    builder.env_from().await?;
    builder.env().await?;
    let services = std::mem::take(&mut builder.services);
    for (name, value) in services {
        if builder.get(&name).is_none() {
            builder.out.push((name, value));
        }
    }
    Ok(builder.out)
}

impl Builder<'_> {
    fn get(&self, name: &str) -> Option<&String> {
        self.places.get(name).map(|place| &self.out[*place].1)
    }

    fn set(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(place) => self.out[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.out.len());
                self.out.push((name, value));
            }
        }
    }

    async fn env_from(&mut self) -> Result<(), String> {
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.clone().unwrap_or_default();
            if let Some(reference) = &source.config_map_ref {
                if let Some(map) =
                    self.ctx.config_map(self.pod, &reference.name, reference.optional.unwrap_or(false)).await?
                {
                    map.data.iter().flatten().for_each(|(k, v)| self.set(format!("{prefix}{k}"), v.clone()));
                }
            } else if let Some(reference) = &source.secret_ref
                && let Some(secret) =
                    self.ctx.secret(self.pod, &reference.name, reference.optional.unwrap_or(false)).await?
            {
                for (key, value) in secret.data.iter().flatten() {
                    self.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                }
            }
        }
        Ok(())
    }

    async fn env(&mut self) -> Result<(), String> {
        for var in self.container.env.iter().flatten() {
            let value = match (&var.value, &var.value_from) {
                (Some(text), _) if !text.is_empty() => {
                    Some(expansion::expand(text, |name| self.get(name).or_else(|| self.services.get(name)).cloned()))
                }
                (_, Some(source)) => self.source(source).await?,
                _ => Some(String::new()),
            };
            if let Some(value) = value {
                self.set(var.name.clone(), value);
            }
        }
        Ok(())
    }

    /// The value of a source; `None` where an optional one is missing.
    async fn source(&self, source: &EnvVarSource) -> Result<Option<String>, String> {
        let namespace = self.pod.namespace();
        if let Some(selector) = &source.field_ref {
            return field_ref::field(selector, self.pod, self.facts).map(Some);
        }
        if let Some(selector) = &source.resource_field_ref {
            return field_ref::resource(selector, self.pod, Some(self.container), self.facts).map(Some);
        }
        if let Some(selector) = &source.config_map_key_ref {
            let optional = selector.optional.unwrap_or(false);
            let Some(map) = self.ctx.config_map(self.pod, &selector.name, optional).await? else { return Ok(None) };
            return match map.data.as_ref().and_then(|d| d.get(&selector.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", selector.key, selector.name)),
            };
        }
        if let Some(selector) = &source.secret_key_ref {
            let optional = selector.optional.unwrap_or(false);
            let Some(secret) = self.ctx.secret(self.pod, &selector.name, optional).await? else { return Ok(None) };
            return match secret.data.as_ref().and_then(|d| d.get(&selector.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{}", selector.key, selector.name)),
            };
        }
        if let Some(selector) = &source.file_key_ref {
            return self.file_key(selector);
        }
        Ok(Some(String::new()))
    }

    /// A key of a `KEY=VALUE` file in a volume (KEP-3721).
    fn file_key(&self, selector: &api::k8s::core::v1::FileKeySelector) -> Result<Option<String>, String> {
        let optional = selector.optional.unwrap_or(false);
        let missing =
            || format!("cannot find the volume {} referenced by FileKeyRef", format::quote(&selector.volume_name));
        let volume = self.volumes.get(&selector.volume_name).ok_or_else(missing)?;
        let text = crate::volumes::subpath::read_within(&volume.path, &selector.path)
            .map_err(|_| "couldn't parse env file".to_owned())?;
        let lines = text.lines().map(str::trim).filter(|l| !l.starts_with('#'));
        let found = lines.filter_map(|l| l.split_once('=')).rfind(|(k, _)| k.trim() == selector.key);
        match found.map(|(_, v)| v.trim().trim_matches(['"', '\'']).to_owned()).filter(|v| !v.is_empty()) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(format!(
                "environment variable key {} not found in file {}",
                format::quote(&selector.key),
                format::quote(&volume.path.join(&selector.path).display().to_string())
            )),
        }
    }
}
