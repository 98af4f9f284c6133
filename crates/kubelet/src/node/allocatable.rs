//! Node allocatable: what is left of the machine for pods.

use super::machine::Machine;
use crate::config::Config;
use crate::eviction::threshold;
use crate::qos::Resources;
use api::quantity::{Format, Quantity};

/// What pods may use together: capacity less `systemReserved` and `kubeReserved`.
pub fn of_pods(machine: &Machine, config: &Config) -> Resources {
    let settings = &config.settings;
    let mut out = capacity(machine, config);
    for list in [&settings.system_reserved, &settings.kube_reserved] {
        for (name, text) in list {
            if let Ok(amount) = Quantity::parse(text) {
                subtract(&mut out, name, &amount);
            }
        }
    }
    if !settings.reserved_system_cpus.is_empty()
        && let Ok(cpus) = settings.reserved_system_cpus.parse::<crate::resource_managers::cpuset::CpuSet>()
    {
        // The list replaces what is reserved by amount.
        let left = i64::try_from(machine.cpus()).unwrap_or(0) - i64::try_from(cpus.len()).unwrap_or(0);
        out.insert("cpu".into(), Quantity::from_units(left.max(0), Format::DecimalSi));
    }
    out
}

/// What the scheduler may give: the above less what eviction keeps free, and memory less huge pages.
pub fn of_scheduler(machine: &Machine, config: &Config) -> Resources {
    let mut out = of_pods(machine, config);
    let all = capacity(machine, config);
    for threshold in threshold::parse(&config.settings).unwrap_or_default().iter().filter(|t| t.is_hard()) {
        let name = match threshold.signal {
            threshold::Signal::Memory => "memory",
            threshold::Signal::NodeFs => "ephemeral-storage",
            _ => continue,
        };
        let capacity = all.get(name).map_or(0, Quantity::value);
        subtract(&mut out, name, &threshold.value.of(capacity));
    }
    let huge = Quantity::from_units(i64::try_from(machine.hugepage_bytes()).unwrap_or(0), Format::BinarySi);
    subtract(&mut out, "memory", &huge);
    out
}

fn capacity(machine: &Machine, config: &Config) -> Resources {
    crate::qos::parse(Some(&machine.capacity(config)))
}

fn subtract(from: &mut Resources, name: &str, amount: &Quantity) {
    if let Some(has) = from.get_mut(name) {
        let left = has.minus(amount);
        *has = if left.sign() < 0 { Quantity::from_units(0, has.format()) } else { left };
    }
}
