//! `admissionregistration.k8s.io`. Expressions are checked for presence only: CEL is not compiled here.

pub mod binding;
mod matching;
pub mod policy;
pub mod webhook;
mod webhook_client;
