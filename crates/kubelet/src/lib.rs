//! The kubelet: pod lifecycle, probes, volumes, node status, streaming server
