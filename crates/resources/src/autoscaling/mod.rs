//! `autoscaling`: horizontal pod autoscalers. v1 is served from the stored v2 form.

pub mod horizontal_pod_autoscaler;
mod metrics;
mod v1;

pub use v1::{HorizontalPodAutoscalerV1, V1};
