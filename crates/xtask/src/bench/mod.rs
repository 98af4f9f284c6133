//! `cargo xtask bench …`: the figures the README claims, one file each.

mod api;
mod bodies;
mod client;
mod connection;
mod first_cluster;
mod pods;
mod server;

use clap::Subcommand;

/// Measures a figure that the README claims.
#[derive(clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The API server alone: writes, reads, lists, watches, memory
    Api(api::Api),
    /// The worst request bodies: CPU time and memory
    Bodies(bodies::Bodies),
    /// From an empty directory to running pods on one node
    FirstCluster(first_cluster::FirstCluster),
    /// Pods: start, burst, exec, memory, idle CPU
    Pods(pods::Pods),
}

impl Bench {
    /// Runs the benchmark and prints a table. Those that run pods install what images are made of.
    pub fn run(self) -> anyhow::Result<()> {
        if matches!(self.what, What::FirstCluster(_) | What::Pods(_)) {
            super::test::install_packages()?;
        }
        match self.what {
            What::Api(bench) => bench.run(),
            What::Bodies(bench) => bench.run(),
            What::FirstCluster(bench) => bench.run(),
            What::Pods(bench) => bench.run(),
        }
    }
}

/// Prints the median of samples, with the least, the 99th percentile and the number.
fn row(what: &str, unit: &str, samples: &[f64]) {
    let [p50, p99] = [50, 99].map(|p| percentile(samples, p));
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{what:<52} {p50:>9.2} {unit} (least {least:.2}, p99 {p99:.2}, n = {})", samples.len());
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
