//! Compact facts about the built-in API: what is served, which fields there are, how they merge,
//! how they look in protobuf and OpenAPI.
//!
//! `data/*.txt` holds the facts as plain tables; `build.rs` lays them out as constant tables, so
//! nothing is parsed at start and nothing is resident but what is looked at. Everything else is a
//! walk over those tables: [`decode`] checks a JSON body, [`openapi`] answers `/openapi/*`,
//! [`protobuf`] transcodes, [`golang`](internal_json) prints what Go prints.
//!
//! Invariants: schemas are sorted by name and found by binary search; a field's number is its
//! protobuf tag; embedded Go structs stay visible as `inline` fields because protobuf nests them.
//!
//! Deliberately absent: custom resources (their schemas are data), defaulting, validation.

mod decode;
mod duplicates;
mod golang;
pub mod openapi;
pub mod protobuf;
mod resources;
mod types;
mod weight;
mod wire;

pub use decode::{Canonical, Decoded, complete, complete_unstored, convert, decode, decode_slice, drop_empty};
pub use duplicates::duplicate_fields;
pub use golang::{Layout, dump, internal_json};
pub use openapi::description;
pub use openapi::{CustomKind, openapi_v3_custom};
pub use openapi::{
    openapi_v2, openapi_v2_hash, openapi_v2_protobuf, openapi_v2_to_protobuf, openapi_v3, openapi_v3_hash,
    openapi_v3_index,
};
pub use protobuf::{Envelope, ListMessage, envelope, from_protobuf, message, to_protobuf, watch_event_protobuf};
pub use resources::{ResourceFact, resource, resources, schema_name};
pub use types::{Facts, Field, Kind, Schema, Type};
pub use weight::Weight;
