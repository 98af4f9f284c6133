//! Handlers of postStart and preStop hooks.

use crate::context::Context;
use crate::events::{EventType, reason};
use crate::format;
use crate::probes::http::Request;
use api::k8s::core::v1::{Container, LifecycleHandler, Pod};
use std::net::IpAddr;
use std::time::Duration;

/// Longest time an HTTP hook may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// An exec hook may run as long as its pod lets it; the caller bounds it.
const EXEC_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Runs a handler to its end. The error is the message that goes to the container's state, never to an event:
/// it may hold what a secret held.
pub async fn run(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    ip: Option<IpAddr>,
    handler: &LifecycleHandler,
) -> Result<(), String> {
    let whose = format!(
        "for Container {} in Pod {} failed - error:",
        format::quote(&container.name),
        format::quote(&format::pod(pod))
    );
    if let Some(exec) = &handler.exec {
        let cmd = exec.command.clone().unwrap_or_default();
        let shown = format::list(&cmd);
        let result = ctx.config.runtime.exec_sync(id, cmd, EXEC_TIMEOUT).await;
        return match result {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.push_str(&String::from_utf8_lossy(&output.stderr));
                let (code, text) = (output.exit_code, format::quote(&text));
                Err(format!(
                    "Exec lifecycle hook ({shown}) {whose} command terminated with exit code {code}, message: {text}"
                ))
            }
            Err(error) => Err(format!("Exec lifecycle hook ({shown}) {whose} {error}, message: \"\"")),
        };
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.as_deref().unwrap_or_default();
        let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
        let sent = match Request::new(action, container, &ip, "lifecycle") {
            Ok(request) => {
                let plain = request.without_tls();
                match (request.send(HTTP_TIMEOUT).await, plain) {
                    // As upstream: hooks once ignored their scheme, and servers came to rely on that.
                    (Err(why), Some(plain)) if why.contains("server gave HTTP response to HTTPS client") => {
                        let address = plain.address();
                        let sent = plain.send(HTTP_TIMEOUT).await.map(drop);
                        if sent.is_ok() {
                            let text = format!("request to HTTPS lifecycle hook {address} got HTTP response, retry with HTTP succeeded");
                            ctx.recorder.pod(pod, EventType::Warning, reason::LIFECYCLE_HTTP_FALLBACK, text);
                        }
                        sent.map_err(|_| why)
                    }
                    (sent, _) => sent.map(drop),
                }
            }
            Err(why) => Err(why),
        };
        return sent.map_err(|why| format!("HTTP lifecycle hook ({path}) {whose} {why}"));
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".into())
}
