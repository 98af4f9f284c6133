//! Orders the queue: higher priority first, then the longer waiting.

use crate::framework::{Plugin, QueueSort, SortKey};
use crate::pod_info::priority;
use crate::queue::QueuedPod;
use std::cmp::Reverse;

pub(crate) struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn key(&self, queued: &QueuedPod) -> SortKey {
        (Reverse(priority(&queued.pod)), queued.added)
    }
}
