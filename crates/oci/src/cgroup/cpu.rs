//! CPU time: shares (weight) and quota.

use super::{Counters, Resources, read_key, read_number, write};
use crate::error::Result;
use std::path::Path;

pub(super) fn v1(dir: &Path, r: &Resources) -> Result<()> {
    if r.cpu_shares != 0 {
        write(dir, "cpu.shares", r.cpu_shares)?;
    }
    // A quota is checked against the period in force: where the new period comes first it may be refused.
    if r.cpu_period != 0 && write(dir, "cpu.cfs_period_us", r.cpu_period).is_err() {
        write(dir, "cpu.cfs_quota_us", r.cpu_quota)?;
        write(dir, "cpu.cfs_period_us", r.cpu_period)?;
    }
    if r.cpu_quota != 0 {
        write(dir, "cpu.cfs_quota_us", r.cpu_quota)?;
    }
    Ok(())
}

pub(super) fn v2(dir: &Path, r: &Resources) -> Result<()> {
    if r.cpu_shares != 0 {
        write(dir, "cpu.weight", weight(r.cpu_shares as u64))?;
    }
    if r.cpu_quota != 0 || r.cpu_period != 0 {
        let quota = if r.cpu_quota > 0 { r.cpu_quota.to_string() } else { "max".into() };
        let period = if r.cpu_period != 0 { r.cpu_period } else { 100_000 };
        write(dir, "cpu.max", format_args!("{quota} {period}"))?;
    }
    Ok(())
}

pub(super) fn v1_counters(dir: &Path, counters: &mut Counters) {
    counters.cpu_ns = read_number(dir, "cpuacct.usage").unwrap_or(0);
}

pub(super) fn v2_counters(dir: &Path, counters: &mut Counters) {
    counters.cpu_ns = read_key(dir, "cpu.stat", "usage_usec").unwrap_or(0).saturating_mul(1000);
}

/// v1 shares as v2 weight: the curve through (2, 1), (1024, 100) and (262144, 10000) that runc uses.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (shares, expect) in
            [(2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (1 << 40, 10_000)]
        {
            assert_eq!(weight(shares), expect, "{shares}");
        }
    }
}
