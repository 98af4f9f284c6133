//! `admissionregistration.k8s.io`: webhook configurations and admission policies.

pub mod binding;
pub mod expressions;
mod matching;
pub mod policy;
pub mod webhook;
pub(crate) mod webhook_client;
