//! Orders the queue: higher priority first, then the longer waiting.

use crate::framework::{ClusterEvent, Plugin, QueueSort, SortKey};
use crate::pod_info::priority;
use crate::queue::QueuedPod;
use api::k8s::core::v1::Pod;
use std::cmp::Reverse;

pub(crate) struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn hint(&self, _pod: &Pod, _event: &ClusterEvent) -> bool {
        false
    }
}

impl QueueSort for PrioritySort {
    fn key(&self, queued: &QueuedPod) -> SortKey {
        (Reverse(priority(&queued.pod)), queued.added)
    }
}
