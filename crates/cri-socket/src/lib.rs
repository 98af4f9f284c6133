//! CRI v1 on a Unix socket, both ways.
//!
//! [`client`] makes a runtime behind a socket (containerd, CRI-O) into [`cri::RuntimeService`] and
//! [`cri::ImageService`], so that the kubelet does not know the difference. [`server`] serves ours on a socket, for
//! the real kubelet and crictl, with a streaming server for the URLs that Exec, Attach and PortForward answer with.
//! [`convert`] is the one place where `cri`'s plain types and protobuf meet.
//!
//! Invariants: nothing of a pod is known to this crate that the peer does not know too, except the sandboxes'
//! configurations, which the client keeps on disk because CreateContainer repeats them.
//!
//! Absent: Windows, SELinux, checkpoints, the paged list streams (optional in CRI), TLS.

pub mod client;
mod convert;
mod events;
mod images;
pub mod server;

pub use client::RemoteRuntime;
pub use images::RemoteImages;
