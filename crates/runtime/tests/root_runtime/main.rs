//! The runtime on a real kernel. Needs root; the binary is its own shim, hence its own main.
//!
//! `cargo test -p runtime --test root_runtime [-- NAME]`

mod bed;
mod escapes;
mod isolation;
mod life;
mod soak;
mod streams;

use bed::Bed;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;

type Case = (&'static str, fn(&mut Bed) -> BoxFuture<'_, ()>);

/// Names a case after its function.
macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |bed| $module::$name(bed).boxed())),*]
    };
}

const CASES: &[Case] = cases![
    life::runs_and_logs,
    life::exit_codes_and_reasons,
    life::start_errors,
    life::failed_creation_leaves_nothing,
    life::stop_escalates,
    life::events_come_in_order,
    life::an_agent_restart_takes_over,
    life::a_killed_shim_is_noticed,
    life::logs_rotate_and_cut,
    life::fifty_lives,
    life::burst,
    isolation::process_is_confined,
    isolation::file_systems,
    isolation::users,
    isolation::privileged_and_host,
    isolation::seccomp_profiles,
    isolation::our_binary_is_safe,
    isolation::devices_are_restricted,
    isolation::propagation,
    isolation::limits_and_stats,
    isolation::pod_namespaces,
    isolation::user_namespace,
    isolation::memory_watch,
    escapes::linked_system_directories,
    escapes::volumes_over_proc,
    escapes::links_on_the_way_to_a_mount,
    escapes::links_in_dev,
    escapes::sysctls_of_the_node,
    escapes::capabilities_of_execs,
    escapes::linked_logs,
    escapes::strange_user_files,
    soak::a_thousand_processes,
    soak::two_thousand_lives,
    streams::exec_sync,
    streams::exec_with_pipes,
    streams::exec_with_terminal,
    streams::attach,
    streams::attach_terminal,
    streams::port_forward,
];

fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "shim") {
        runtime::shim::main(args.into_iter().skip(2).collect());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("root_runtime: these tests need root");
        std::process::exit(1);
    }
    let filter =
        args.get(1).map(|a| a.to_string_lossy().into_owned()).filter(|a| !a.starts_with('-')).unwrap_or_default();
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let failed =
        // Long runs only by name.
        CASES.iter().filter(|(name, _)| name.contains(&filter) && (filter.contains("soak") || !name.starts_with("soak"))).filter(|case| !tokio.block_on(run(case))).count();
    std::process::exit(i32::from(failed > 0));
}

async fn run((name, case): &Case) -> bool {
    let began = std::time::Instant::now();
    let mut bed = Bed::new().await;
    let outcome = AssertUnwindSafe(case(&mut bed)).catch_unwind().await;
    let closed = bed.close().await;
    if let Err(why) = &closed {
        eprintln!("{name}: {why}");
    }
    let passed = outcome.is_ok() && closed.is_ok();
    println!("{} {name} ({:.0?})", if passed { "ok  " } else { "FAIL" }, began.elapsed());
    passed
}
