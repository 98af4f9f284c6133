//! Probes that run a command in the container.

use super::{Outcome, Target};
use crate::context::Context;
use crate::env::expansion::expand;
use crate::format::{duration, quote};
use api::k8s::core::v1::ExecAction;
use std::time::Duration;

/// Most of the output that is shown.
const MAX_OUTPUT: usize = 10 * 1024;

/// Runs the command: exit code 0 is success.
pub async fn probe(ctx: &Context, target: &Target, action: &ExecAction, timeout: Duration) -> Outcome {
    let env = target.container.env.as_deref().unwrap_or_default();
    let lookup = |name: &str| env.iter().find(|v| v.name == name).and_then(|v| v.value.clone());
    let cmd: Vec<String> = action.command.iter().flatten().map(|word| expand(word, lookup)).collect();
    match ctx.config.runtime.exec_sync(&target.container_id, cmd.clone(), timeout).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut bytes = output.stdout;
            bytes.extend_from_slice(&output.stderr);
            bytes.truncate(MAX_OUTPUT);
            Outcome::Failure(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(cri::Error::DeadlineExceeded(_)) => Outcome::Failure(format!(
            "command timed out: {} timed out after {}",
            quote(&cmd.join(" ")),
            duration(timeout)
        )),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}
