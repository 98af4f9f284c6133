//! Pressure: how long tasks wait for a resource (the kernel's PSI, Documentation/accounting/psi.rst).

/// What the tasks of a cgroup wait for; nothing where the kernel does not say, as on cgroup v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    /// For a CPU.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For storage.
    pub io: Option<Pressure>,
}

/// Waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Time in which at least one task waited.
    pub some: Stalls,
    /// Time in which all tasks waited at once.
    pub full: Stalls,
}

/// Time lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// In all, microseconds.
    pub total: u64,
    /// Share of the last 10 seconds, hundredths of a percent.
    pub avg10: u32,
    /// Share of the last 60 seconds, hundredths of a percent.
    pub avg60: u32,
    /// Share of the last 300 seconds, hundredths of a percent.
    pub avg300: u32,
}

impl Pressure {
    /// Reads the text of a `*.pressure` file; `full` is missing for CPUs before kernel 5.13.
    pub fn parse(text: &str) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| Stalls::parse(line.strip_prefix(name)?));
        Some(Self { some: line("some ")?, full: line("full ").unwrap_or_default() })
    }
}

impl Stalls {
    /// `avg10=0.00 avg60=0.12 avg300=3.40 total=12345`
    fn parse(line: &str) -> Option<Self> {
        let value = |key: &str| line.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        // Two decimals always.
        let hundredths = |key: &str| value(key)?.replace('.', "").parse().ok();
        Some(Self {
            total: value("total")?.parse().ok()?,
            avg10: hundredths("avg10")?,
            avg60: hundredths("avg60")?,
            avg300: hundredths("avg300")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let text =
            "some avg10=1.25 avg60=0.07 avg300=100.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let some = Stalls { total: 123_456, avg10: 125, avg60: 7, avg300: 10_000 };
        let full = Stalls { total: 7, ..Stalls::default() };
        assert_eq!(Pressure::parse(text), Some(Pressure { some, full }));
        let first = text.lines().next().expect("a line");
        assert_eq!(Pressure::parse(first), Some(Pressure { some, full: Stalls::default() }));
        for text in ["", "some", "some avg10=x avg60=0.00 avg300=0.00 total=1", "full avg10=0.00"] {
            assert_eq!(Pressure::parse(text), None, "{text}");
        }
    }
}
