//! An in-process control plane for tests
