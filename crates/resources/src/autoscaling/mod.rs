//! `autoscaling`: horizontal pod autoscalers. v1 is served from the stored v2 form.

pub mod horizontal_pod_autoscaler;
mod metrics;
mod v1;
mod v1_annotations;

pub use v1::{HorizontalPodAutoscalerV1, V1};
