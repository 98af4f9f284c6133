//! `cargo xtask bench …`: the figures the README claims, one file each.

mod first_cluster;
mod http;

use clap::Subcommand;

/// Measures a figure that the README claims.
#[derive(clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From an empty directory to running pods on one node
    FirstCluster(first_cluster::FirstCluster),
}

impl Bench {
    /// Runs the benchmark and prints a table.
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::FirstCluster(bench) => bench.run(),
        }
    }
}

/// The value below which `percent` % of the samples lie; samples need not be sorted.
fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let samples = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((percentile(&samples, 50), percentile(&samples, 99)), (3.0, 5.0));
    }
}
