//! The strategies of the built-in kinds: everything the server knows about one kind and no other.
//!
//! A kind is one file with a [`Strategy`] and one row in [`table::ROWS`]. What is fact (scope, verbs,
//! short names, categories, subresources) comes from `schema`; what is behaviour (defaulting,
//! preparation, validation, columns, selectable fields) is here. The generic handlers of `apiserver`
//! call the strategy in this order: default → (mutating admission) → prepare → validate.
//!
//! Deliberately absent: IO, clocks, randomness, storage. A [`Ctx`] carries what a strategy may need
//! to know about the request.

pub mod admissionregistration;
pub mod age;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod columns;
mod conditions;
mod coordination;
pub mod core;
mod difference;
mod discovery;
mod events;
pub mod field;
pub mod flowcontrol;
mod gates;
pub mod metadata;
pub mod names;
mod networking;
mod node;
mod pem;
mod policy;
mod rbac;
mod resource;
mod rules;
pub mod scheduling;
mod semantic;
mod storage;
mod strategy;
pub mod structural;
pub mod table;

pub use gates::drop_disabled;
pub use metadata::{validate_create, validate_status_update, validate_update};
pub use strategy::*;
