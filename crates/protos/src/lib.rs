//! Messages and services of the node's gRPC interfaces, and the Unix sockets they are spoken on.
//!
//! `proto/*.proto` are compiled at build time by `protox` and `prost`. [`socket::connect`] makes a client's
//! channel, [`socket::serve`] serves several services on one socket.
//!
//! Absent: TLS and TCP; every peer is a process of the same node, found by its socket's path.

#![allow(missing_docs, clippy::all)]

/// The container runtime interface.
pub mod cri {
    tonic::include_proto!("runtime.v1");
}
/// The container storage interface.
pub mod csi {
    tonic::include_proto!("csi.v1");
}
/// Device plugins.
pub mod deviceplugin {
    tonic::include_proto!("v1beta1");
}
/// Dynamic resource allocation on the node.
pub mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}
/// Health of dynamic resources.
pub mod dra_health {
    tonic::include_proto!("v1alpha1");
}
/// Plugin registration.
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}
/// What pods were given.
pub mod podresources {
    tonic::include_proto!("v1");
}
pub mod socket;

pub use tonic::{Code, Request, Response, Status, Streaming, async_trait};
