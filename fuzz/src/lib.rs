//! What all fuzz targets share: the bounds that each input must keep.

pub mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The largest request body.
const BODY: usize = 3 << 20;
/// CPU time for one request body, in nanoseconds: 100 ms, times what instrumentation and checks cost (a body of YAML that
/// takes the server 20 ms takes the target 900).
const TIME: u64 = 15 * 100_000_000;
/// Memory for one request body.
const MEMORY: usize = 64 << 20;
/// Of so many inputs, one is blown up to the size of the largest body.
const LARGE_EVERY: u64 = 64;

/// Counts what is allocated, and the most that was at once.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a target on an input, and now and then on one that is as large as a body can be.
pub fn within_bounds(target: fn(&[u8]), data: &[u8]) {
    static INPUTS: AtomicU64 = AtomicU64::new(0);
    measured(target, data);
    if !data.is_empty() && INPUTS.fetch_add(1, Ordering::Relaxed) % LARGE_EVERY == 0 {
        // The middle is repeated: what opens and closes stays, what may come often does.
        let third = data.len() / 3;
        let (head, middle, tail) = (&data[..third], &data[third..data.len() - third], &data[data.len() - third..]);
        let times = (BODY - head.len() - tail.len()) / middle.len().max(1);
        let mut large = head.to_vec();
        (0..times).for_each(|_| large.extend_from_slice(middle));
        large.extend_from_slice(tail);
        measured(target, &large);
    }
}

fn measured(target: fn(&[u8]), data: &[u8]) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let begun = cpu();
    target(data);
    let (used, memory) = (cpu() - begun, PEAK.load(Ordering::Relaxed).saturating_sub(before));
    assert!(used < TIME, "{} bytes took {} ms", data.len(), used / 1_000_000);
    assert!(memory < MEMORY, "{} bytes took {} MiB", data.len(), memory >> 20);
}

/// CPU time of this thread in nanoseconds.
fn cpu() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
