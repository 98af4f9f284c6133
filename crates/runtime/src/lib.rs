//! Our container runtime: sandboxes, containers, shims, streams
