//! Local clusters: what minikube and kind do, without Docker or VMs.
//!
//! A cluster is a directory ([`Layout`]) with a record of what it is ([`Spec`]). Its node is a
//! supervisor process ([`node`]) in its own network, mount, UTS and cgroup namespaces, which runs
//! `sagong server` and starts it anew when it dies. The namespaces are pinned by bind mounts
//! ([`pins`]), so that a new supervisor finds the old node with its pods. The host side of the
//! network is [`host`]; [`lifecycle`] puts the steps in order; [`kubeconfig`] keeps the user's contexts.
//!
//! Invariants: every step is idempotent and `delete` undoes all of them, whatever state a crash left;
//! two clusters, also of two data directories, never share a slot (addresses, bridge, cgroup).
//!
//! Deliberately absent: flags and environment (the binary reads them), the control plane itself.

pub mod cgroup;
pub mod host;
pub mod kubeconfig;
mod layout;
pub mod lifecycle;
pub mod node;
pub mod notify;
pub mod pins;
pub mod process;
mod slot;
mod spec;

pub use layout::Layout;
pub use layout::images_dir;
pub use spec::{Spec, cidr_text};

/// Why a command on a cluster failed: what was tried, what the system said, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such cluster.
    #[error("there is no cluster {0:?}; `sagong ls` lists those there are, `sagong up {0}` makes it")]
    NoSuchCluster(String),
    /// The name cannot be a host name or a context.
    #[error("{0:?} cannot name a cluster: use at most 40 lower case letters, digits and '-', beginning with a letter")]
    BadName(String),
    /// Another command works on the cluster.
    #[error("another sagong command is working on cluster {0:?}; wait for it to end")]
    Busy(String),
    /// All address ranges are taken.
    #[error("no free address range is left for another cluster: {0}")]
    NoSlot(String),
    /// The process may not do what a node needs.
    #[error("a node needs root ({0}); run the command as root")]
    NotRoot(&'static str),
    /// The node ended or said nothing while it was being started.
    #[error("the node did not start: {reason}\n{log}see {path}")]
    NodeFailed {
        /// What ended the wait.
        reason: String,
        /// The last lines of its log.
        log: String,
        /// The log.
        path: String,
    },
    /// An operation of the system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged ({reason}); {fix}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
        /// What helps.
        fix: &'static str,
    },
    /// The network could not be set up.
    #[error("cannot set up the network of the cluster: {0}")]
    Network(String),
}

/// The result of an operation on a cluster.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what was tried when an operation of the system fails.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }
}
