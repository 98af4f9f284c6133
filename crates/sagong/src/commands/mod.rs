//! One file for each command.

pub mod access;
pub mod agent;
pub mod api_flags;
pub mod cri;
pub mod delete;
pub mod encryption;
pub mod image;
pub mod kubeconfig;
pub mod logs;
pub mod ls;
pub mod node;
pub mod server;
pub mod start;
pub mod status;
pub mod stop;
pub mod up;
pub mod version;

/// Now, as records keep it.
fn now() -> String {
    jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Runs a future of a short-lived command.
fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
