//! What the worst bodies cost: each is sent through the whole server in memory, its CPU time and the most memory that was
//! allocated at once are printed, and what is over the bounds makes the benchmark fail.
//!
//! `cargo xtask bench bodies [PART OF A NAME]`

mod cases;

use anyhow::{Context, Result, bail};
use cases::{Call, Case};
use http_body_util::BodyExt;
use kube::Client;
use peak_alloc::PeakAlloc;
use testing::ControlPlane;

/// CPU time for one request.
const MILLISECONDS: f64 = 100.0;
/// Memory for one request.
const MEBIBYTES: f64 = 64.0;
/// The least of so many runs counts: others disturb, nothing makes faster.
const RUNS: usize = 3;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What one request took.
struct Taken {
    milliseconds: f64,
    mebibytes: f64,
    code: u16,
}

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let over = runtime.block_on(run(&wanted))?;
    if over > 0 {
        bail!("{over} bodies take more than {MILLISECONDS} ms or {MEBIBYTES} MiB");
    }
    Ok(())
}

/// Gives the number of cases that are over.
async fn run(wanted: &[String]) -> Result<usize> {
    let server = ControlPlane::start().await?;
    let client = server.admin();
    for call in cases::prepared() {
        let code = send(&client, &call).await?.code;
        anyhow::ensure!(code < 300, "{} {}: {code}", call.method, call.path);
    }
    println!("{:<58} {:>8} {:>6} {:>8} {:>8}", "body", "bytes", "code", "CPU ms", "MiB");
    let mut over = 0;
    for case in cases::all() {
        if wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part.as_str())) {
            over += usize::from(measure(&client, case).await?);
        }
    }
    Ok(over)
}

/// Prints what a case takes; whether that is too much.
async fn measure(client: &Client, case: Case) -> Result<bool> {
    let body = (case.call)();
    for call in case.before.map(|before| before()).into_iter().flatten() {
        send(client, &call).await?;
    }
    let mut least: Option<Taken> = None;
    for _ in 0..RUNS {
        let taken = send(client, &body).await?;
        let better = least.as_ref().is_none_or(|least| taken.milliseconds < least.milliseconds);
        least = if better { Some(taken) } else { least };
        if least.as_ref().is_some_and(|least| least.milliseconds > 10.0 * MILLISECONDS) {
            break;
        }
    }
    let Taken { milliseconds, mebibytes, code } = least.context("no run")?;
    let over = milliseconds > MILLISECONDS || mebibytes > MEBIBYTES;
    let (size, mark) = (body.body.len() + body.path.len(), if over { "OVER" } else { "" });
    println!("{:<58} {size:>8} {code:>6} {milliseconds:>8.1} {mebibytes:>8.1} {mark}", case.name);
    Ok(over)
}

async fn send(client: &Client, call: &Call) -> Result<Taken> {
    let request = http::Request::builder().method(call.method).uri(&call.path).header("content-type", call.kind);
    let request = request.header("accept", "application/json").body(kube::client::Body::from(call.body.clone()))?;
    let held = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let begun = cpu();
    let answer = client.send(request).await?;
    let code = answer.status().as_u16();
    let text = answer.into_body().collect().await?.to_bytes();
    let milliseconds = cpu() - begun;
    let mebibytes = ALLOCATED.peak_usage().saturating_sub(held) as f64 / f64::from(1 << 20);
    if std::env::var_os("SHOW").is_some() {
        println!("  {}", String::from_utf8_lossy(&text[..text.len().min(300)]));
    }
    Ok(Taken { milliseconds, mebibytes, code })
}

/// CPU time of the process in milliseconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
