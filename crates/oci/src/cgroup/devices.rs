//! Which devices may be used: v1 lists, a v2 BPF program.

use super::write;
use crate::error::{Context, Error, Result};
use crate::sys;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Devices that are allowed; `None` stands for any number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Letters of `rwm`.
    pub access: String,
}

impl DeviceRule {
    /// Everything.
    pub fn all() -> Self {
        Self { kind: 'a', major: None, minor: None, access: "rwm".into() }
    }
}

/// What every container may use: its standard nodes and terminals, and `mknod` without use.
pub fn default_rules() -> Vec<DeviceRule> {
    const USE: [(Option<u32>, Option<u32>); 9] = [
        (Some(1), Some(3)),
        (Some(1), Some(5)),
        (Some(1), Some(7)),
        (Some(1), Some(8)),
        (Some(1), Some(9)),
        (Some(5), Some(0)),
        (Some(5), Some(1)),
        (Some(5), Some(2)),
        (Some(136), None),
    ];
    let make = ['c', 'b'].map(|kind| DeviceRule { kind, major: None, minor: None, access: "m".into() });
    let used = USE.map(|(major, minor)| DeviceRule { kind: 'c', major, minor, access: "rwm".into() });
    make.into_iter().chain(used).collect()
}

pub(super) fn v1(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    write(dir, "devices.deny", "a")?;
    let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
    rules.iter().try_for_each(|r| {
        write(dir, "devices.allow", format_args!("{} {}:{} {}", r.kind, number(r.major), number(r.minor), r.access))
    })
}

pub(super) fn v2(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    const BPF_CGROUP_DEVICE: u64 = 6;
    const BPF_F_ALLOW_MULTI: u64 = 2;
    const BPF_PROG_ATTACH: u32 = 8;
    if rules.iter().any(|r| r.kind == 'a' && r.major.is_none()) {
        return Ok(());
    }
    let program = load(&assemble(rules))?;
    let cgroup = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {}", dir.display()))?;
    let pair = |low: i32, high: i32| low as u32 as u64 | (high as u32 as u64) << 32;
    let mut attr = [pair(cgroup.as_raw_fd(), program.as_raw_fd()), BPF_CGROUP_DEVICE | BPF_F_ALLOW_MULTI << 32, 0, 0];
    sys::bpf(BPF_PROG_ATTACH, &mut attr).context(|| "attach the device program").map(drop)
}

fn load(program: &[u64]) -> Result<OwnedFd> {
    const BPF_PROG_LOAD: u32 = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u64 = 15;
    let count = u32::try_from(program.len()).map_err(|_| Error::Invalid("too many device rules".into()))?;
    let license = c"Apache-2.0";
    let mut attr = [
        BPF_PROG_TYPE_CGROUP_DEVICE | u64::from(count) << 32,
        program.as_ptr() as u64,
        license.as_ptr() as u64,
        0,
        0,
        0,
    ];
    sys::bpf(BPF_PROG_LOAD, &mut attr).context(|| "load the device program").map(sys::own_fd)
}

/// One eBPF instruction.
fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code) | u64::from(dst | src << 4) << 8 | (offset as u16 as u64) << 16 | (immediate as u32 as u64) << 32
}

/// A program over `{ access << 16 | type, major, minor }` that returns 1 for an allowed use.
fn assemble(rules: &[DeviceRule]) -> Vec<u64> {
    const LOAD: u8 = 0x61;
    const MOV: u8 = 0xb7;
    const MOV_REG: u8 = 0xbf;
    const AND: u8 = 0x57;
    const SHIFT_RIGHT: u8 = 0x77;
    const JUMP_NE: u8 = 0x55;
    const EXIT: u8 = 0x95;
    let mut program = vec![
        op(LOAD, 2, 1, 0, 0),
        op(MOV_REG, 3, 2, 0, 0),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(AND, 2, 0, 0, 0xffff),
        op(LOAD, 4, 1, 4, 0),
        op(LOAD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests = Vec::new();
        match rule.kind {
            'b' => tests.push(op(JUMP_NE, 2, 0, 0, 1)),
            'c' => tests.push(op(JUMP_NE, 2, 0, 0, 2)),
            _ => {}
        }
        let allowed = [('m', 1), ('r', 2), ('w', 4)]
            .iter()
            .filter(|(l, _)| rule.access.contains(*l))
            .fold(0, |a, (_, bit)| a | bit);
        tests.extend([op(MOV_REG, 6, 3, 0, 0), op(AND, 6, 0, 0, 7 & !allowed), op(JUMP_NE, 6, 0, 0, 0)]);
        tests.extend(rule.major.map(|n| op(JUMP_NE, 4, 0, 0, n as i32)));
        tests.extend(rule.minor.map(|n| op(JUMP_NE, 5, 0, 0, n as i32)));
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if *test as u8 == JUMP_NE {
                // To behind the two instructions that say yes.
                *test |= ((length - at - 1 + 2) as u64) << 16;
            }
        }
        program.extend(tests);
        program.extend([op(MOV, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([op(MOV, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would; enough of eBPF for what `assemble` makes.
    fn run(program: &[u64], context: [u32; 3]) -> u64 {
        let mut r = [0u64; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            let (code, dst, src) = (i as u8, (i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, immediate) = ((i >> 16) as u16 as usize, (i >> 32) as i32 as u64);
            at += 1;
            match code {
                0x61 => r[dst] = context[offset / 4].into(),
                0xb7 => r[dst] = immediate,
                0xbf => r[dst] = r[src],
                0x57 => r[dst] &= immediate,
                0x77 => r[dst] >>= immediate,
                0x55 if r[dst] != immediate => at += offset,
                0x55 => {}
                0x95 => return r[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn program_allows_what_the_rules_allow() {
        let program = assemble(&default_rules());
        let (block, char) = (1, 2);
        let (mknod, read, write) = (1, 2, 4);
        for (access, kind, major, minor, expect) in [
            (read | write, char, 1, 3, 1),
            (read, char, 1, 1, 0),
            (mknod, char, 1, 1, 1),
            (mknod, block, 8, 0, 1),
            (read, block, 8, 0, 0),
            (read | mknod, block, 8, 0, 0),
            (read | write, char, 136, 7, 1),
            (read, char, 10, 200, 0),
        ] {
            assert_eq!(run(&program, [access << 16 | kind, major, minor]), expect, "{access} {kind} {major}:{minor}");
        }
    }
}
