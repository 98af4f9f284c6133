//! `sagong node DATA_DIR NAME`: the supervisor of a local cluster's node; started by `sagong up`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the supervisor until SIGTERM. No thread exists yet, so that namespaces can be changed.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let run = || -> anyhow::Result<()> {
        let [data_dir, name] = args.as_slice() else { anyhow::bail!("`sagong node` is started by `sagong up`") };
        let layout = cluster::Layout::new(Path::new(data_dir), &name.to_string_lossy())?;
        Ok(cluster::node::run(&layout, &std::env::current_exe()?)?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sagong node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
