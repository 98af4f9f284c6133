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
    ($($first:ident $(:: $rest:ident)+),* $(,)?) => {
        &[$((concat!(stringify!($first) $(, "::", stringify!($rest))+), |bed| $first$(::$rest)+(bed).boxed())),*]
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
    life::a_flooded_log_asks_for_a_new_file,
    life::nobody_waits_for_the_log_of_an_ended_container,
    life::an_endless_writer_does_not_hold_the_end_up,
    life::shims_are_named_after_their_pods,
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
    escapes::descriptors::leaked_directories,
    escapes::descriptors::our_binary,
    escapes::descriptors::joining_processes,
    escapes::proc::linked_system_directories,
    escapes::proc::linked_dev,
    escapes::proc::volumes_over_proc,
    escapes::proc::redirected_writes,
    escapes::proc::sysctls_of_the_node,
    escapes::mounts::links_to_the_node,
    escapes::mounts::exchanged_targets,
    escapes::mounts::writable_cgroups,
    escapes::devices::linked_null,
    escapes::devices::linked_terminal,
    escapes::rights::inheritable_capabilities,
    escapes::rights::rights_of_execs,
    escapes::rights::devices_by_number,
    escapes::rights::wrapping_ids,
    escapes::files::linked_logs,
    escapes::files::strange_user_files,
    escapes::files::no_abstract_sockets,
    soak::a_thousand_processes,
    soak::two_thousand_lives,
    streams::exec_sync,
    streams::exec_waits,
    streams::ends_while_execs_wait,
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
    // Mounts of others must not be counted, nor ours left to them.
    oci::sys::unshare(libc::CLONE_NEWNS).unwrap();
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
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
