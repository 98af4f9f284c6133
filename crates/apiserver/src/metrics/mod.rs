//! Metrics, with upstream's names: each is a [`Family`] beside the code that feeds it, and a line here.
//!
//! They belong to the process: servers of one process share them.

mod family;
mod process;
pub mod requests;
pub mod storage;

pub use family::{Bound, Family};

use crate::health;
use crate::server::ApiServer;
use crate::{audit, encryption, fairness};

/// Families by where they are fed.
const ALL: &[&[&Family]] = &[
    requests::ALL,
    storage::ALL,
    crate::admission::metrics::ALL,
    fairness::metrics::ALL,
    &[&audit::EVENTS, &audit::LEVELS, &audit::ERRORS],
    encryption::METRICS,
];

/// Everything, in Prometheus' text form.
pub async fn text(server: &ApiServer) -> String {
    let mut out = String::with_capacity(64 << 10);
    storage::count(server);
    health::observe(server);
    ALL.iter().copied().flatten().for_each(|family| family.write(&mut out));
    health::RESULT.write(&mut out);
    process::write(&mut out);
    build(&mut out);
    out
}

/// The state of the health checks, in the same form.
pub fn slis(server: &ApiServer) -> String {
    let mut out = String::new();
    health::observe(server);
    health::RESULT.write(&mut out);
    out
}

fn build(out: &mut String) {
    static BUILD: Family = Family::gauge(
        "kubernetes_build_info",
        "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build \
         date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        &[
            "build_date",
            "compiler",
            "git_commit",
            "git_tree_state",
            "git_version",
            "go_version",
            "major",
            "minor",
            "platform",
        ],
    );
    let version = health::version();
    let text = |key: &str| version[key].as_str().unwrap_or("").to_owned();
    let keys =
        ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "major", "minor", "platform"];
    let values = keys.map(text);
    BUILD.set(&values.each_ref().map(String::as_str), 1.0);
    BUILD.write(out);
}
