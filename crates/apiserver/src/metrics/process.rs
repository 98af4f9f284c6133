//! `process_*`: what the kernel says of this process.

use super::Family;
use std::fs;

/// Ticks of `/proc/self/stat` per second: the same on every Linux that matters (`USER_HZ`).
const TICKS: f64 = 100.0;

static CPU: Family =
    Family::counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", &[]);
static START: Family =
    Family::gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", &[]);
static RESIDENT: Family = Family::gauge("process_resident_memory_bytes", "Resident memory size in bytes.", &[]);
static VIRTUAL: Family = Family::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", &[]);
static OPEN: Family = Family::gauge("process_open_fds", "Number of open file descriptors.", &[]);
static MOST: Family = Family::gauge("process_max_fds", "Maximum number of open file descriptors.", &[]);
static THREADS: Family = Family::gauge("process_threads", "Number of threads of the process.", &[]);

/// Reads and appends them; what cannot be read is left out.
pub fn write(out: &mut String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name, in parentheses, may hold blanks.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(1).map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 4).copied();
    if let (Some(user), Some(system), Some(start)) = (field(14), field(15), field(22)) {
        let current = CPU_SEEN.swap(((user + system) as u64).max(1), std::sync::atomic::Ordering::Relaxed);
        CPU.add(&[], ((user + system) - current as f64).max(0.0) / TICKS);
        let boot = read("/proc/stat");
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        START.set(&[], boot.unwrap_or(0.0) + start / TICKS);
    }
    let status = read("/proc/self/status");
    let line = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    for (family, key, scale) in
        [(&RESIDENT, "VmRSS:", 1024.0), (&VIRTUAL, "VmSize:", 1024.0), (&THREADS, "Threads:", 1.0)]
    {
        if let Some(value) = line(key) {
            family.set(&[], value * scale);
        }
    }
    OPEN.set(&[], fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64);
    let limits = read("/proc/self/limits");
    let most =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    MOST.set(&[], most.unwrap_or(0.0));
    [&CPU, &START, &RESIDENT, &VIRTUAL, &OPEN, &MOST, &THREADS].into_iter().for_each(|family| family.write(out));
}

/// Ticks that are in the counter.
static CPU_SEEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_is_understood() {
        let mut out = String::new();
        super::write(&mut out);
        let value = |name: &str| {
            let line = out.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).unwrap_or(-1.0)
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{out}");
        assert!(value("process_start_time_seconds") > 1.6e9, "{out}");
        assert!(value("process_open_fds") > 2.0 && value("process_max_fds") > 2.0, "{out}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{out}");
    }
}
