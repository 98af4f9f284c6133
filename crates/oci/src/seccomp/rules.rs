//! Rules per system call and their compilation to classic BPF.

use super::numbers::number;
use std::collections::BTreeMap;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(u16),
    Log,
    Trap,
    Trace(u16),
    KillThread,
    KillProcess,
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Trace(message) => libc::SECCOMP_RET_TRACE | u32::from(message),
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// How an argument is compared, unsigned in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// A test of one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    argument: u32,
    mask: u64,
    comparison: Comparison,
    value: u64,
}

impl Condition {
    pub(super) fn new(argument: u32, comparison: Comparison, value: u64) -> Self {
        Self { argument, mask: u64::MAX, comparison, value }
    }

    pub(super) fn masked(argument: u32, mask: u64, value: u64) -> Self {
        Self { argument, mask, comparison: Comparison::Eq, value }
    }
}

/// An action, taken when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) conditions: Vec<Condition>,
}

impl Rule {
    pub(super) fn always(action: Action) -> Self {
        Self { action, conditions: Vec::new() }
    }

    pub(super) fn when(action: Action, condition: Condition) -> Self {
        Self { action, conditions: vec![condition] }
    }
}

/// Rules of all calls; what no rule matches gets the default.
pub(super) struct Rules {
    default: Action,
    calls: BTreeMap<u32, Vec<Rule>>,
}

impl Rules {
    pub(super) fn new(default: Action) -> Self {
        Self { default, calls: BTreeMap::new() }
    }

    /// Adds a rule; a call that this machine lacks needs none. The first rule that matches counts.
    pub(super) fn add(&mut self, name: &str, rule: Rule) {
        if let Some(number) = number(name) {
            self.calls.entry(number).or_default().push(rule);
        }
    }

    /// Compiles to a filter: architecture, then a binary search over intervals of call numbers.
    pub(super) fn compile(&self) -> Vec<libc::sock_filter> {
        let errno = |errno: i32| ret(Action::Errno(errno as u16));
        let mut program = vec![load(ARCH_OFFSET), jump(JEQ, AUDIT_ARCH, 1, 0), errno(libc::EPERM), load(0)];
        if cfg!(target_arch = "x86_64") {
            // The x32 ABI: the same calls under other numbers, which no rule would see.
            program.extend([jump(JGE, 0x4000_0000, 0, 1), errno(libc::ENOSYS)]);
        }
        program.extend(search(&self.intervals()));
        program
    }

    /// The whole number line as intervals of equal treatment.
    fn intervals(&self) -> Vec<(u32, Vec<libc::sock_filter>)> {
        let default = vec![ret(self.default)];
        let mut intervals = vec![(0, default.clone())];
        for (number, rules) in &self.calls {
            push(&mut intervals, *number, self.block(rules));
            push(&mut intervals, number + 1, default.clone());
        }
        // A call right behind another starts where that one's default would have begun.
        let mut merged: Vec<(u32, Vec<libc::sock_filter>)> = Vec::new();
        for (start, block) in intervals {
            if !merged.last().is_some_and(|(_, last)| equal(last, &block)) {
                merged.push((start, block));
            }
        }
        merged
    }

    fn block(&self, rules: &[Rule]) -> Vec<libc::sock_filter> {
        let mut block = Vec::new();
        for rule in rules {
            block.extend(conditions(&rule.conditions));
            block.push(ret(rule.action));
            if rule.conditions.is_empty() {
                return block;
            }
        }
        block.push(ret(self.default));
        block
    }
}

fn push(intervals: &mut Vec<(u32, Vec<libc::sock_filter>)>, start: u32, block: Vec<libc::sock_filter>) {
    match intervals.last_mut() {
        Some(last) if last.0 == start => last.1 = block,
        _ => intervals.push((start, block)),
    }
}

fn equal(a: &[libc::sock_filter], b: &[libc::sock_filter]) -> bool {
    let fields = |i: &libc::sock_filter| (i.code, i.jt, i.jf, i.k);
    a.len() == b.len() && a.iter().map(fields).eq(b.iter().map(fields))
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;

const ARCH_OFFSET: u32 = 4;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn ret(action: Action) -> libc::sock_filter {
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: action.value() }
}

/// Halves the intervals; the accumulator holds the call's number. Distances go through an
/// unconditional jump, whose reach is 32 bits and not 8.
fn search(intervals: &[(u32, Vec<libc::sock_filter>)]) -> Vec<libc::sock_filter> {
    match intervals {
        [] => Vec::new(),
        [(_, block)] => block.clone(),
        _ => {
            let (low, high) = intervals.split_at(intervals.len() / 2);
            let (start, low) = (high[0].0, search(low));
            let mut program = vec![jump(JGE, start, 0, 1), jump(JUMP, low.len() as u32, 0, 0)];
            program.extend(low);
            program.extend(search(high));
            program
        }
    }
}

/// Where a test goes on.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// Behind this condition: it holds.
    Held,
    /// Behind the rule.
    Failed,
}

/// Tests all conditions and falls through when they hold; else it jumps over the one instruction behind.
fn conditions(conditions: &[Condition]) -> Vec<libc::sock_filter> {
    let parts: Vec<_> = conditions.iter().map(condition).collect();
    let total: usize = parts.iter().map(Vec::len).sum();
    let mut program = Vec::with_capacity(total);
    for part in parts {
        let end = program.len() + part.len();
        for (mut instruction, jt, jf) in part {
            let behind = program.len() + 1;
            let offset = |to| match to {
                To::Next => 0,
                To::Held => (end - behind) as u8,
                To::Failed => (total + 1 - behind) as u8,
            };
            (instruction.jt, instruction.jf) = (offset(jt), offset(jf));
            program.push(instruction);
        }
    }
    program
}

fn condition(c: &Condition) -> Vec<(libc::sock_filter, To, To)> {
    use To::{Failed, Held, Next};
    let offset = 16 + 8 * c.argument;
    let plain = |i| (i, Next, Next);
    let word = |offset: u32, mask: u32| {
        let and = libc::sock_filter { code: AND, jt: 0, jf: 0, k: mask };
        std::iter::once(plain(load(offset))).chain((mask != u32::MAX).then_some(plain(and)))
    };
    let test = |code, k, yes, no| (jump(code, k, 0, 0), yes, no);
    let (high, low) = ((c.value >> 32) as u32, c.value as u32);
    let first = match c.comparison {
        Comparison::Eq => vec![test(JEQ, high, Next, Failed)],
        Comparison::Ne => vec![test(JEQ, high, Next, Held)],
        Comparison::Gt | Comparison::Ge => vec![test(JGT, high, Held, Next), test(JEQ, high, Next, Failed)],
        Comparison::Lt | Comparison::Le => vec![test(JGT, high, Failed, Next), test(JEQ, high, Next, Held)],
    };
    let second = match c.comparison {
        Comparison::Eq => test(JEQ, low, Next, Failed),
        Comparison::Ne => test(JEQ, low, Failed, Next),
        Comparison::Gt => test(JGT, low, Next, Failed),
        Comparison::Ge => test(JGE, low, Next, Failed),
        Comparison::Lt => test(JGE, low, Failed, Next),
        Comparison::Le => test(JGT, low, Failed, Next),
    };
    // seccomp_data is in the machine's byte order; both of ours are little-endian.
    word(offset + 4, (c.mask >> 32) as u32).chain(first).chain(word(offset, c.mask as u32)).chain([second]).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Runs a filter over a call, as the kernel would.
    pub(in super::super) fn run(program: &[libc::sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = vec![nr, arch, 0, 0];
        data.extend(args.iter().flat_map(|a| [*a as u32, (*a >> 32) as u32]));
        let (mut at, mut a) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => a = data[i.k as usize / 4],
                AND => a &= i.k,
                RETURN => return i.k,
                JUMP => at += i.k as usize,
                JEQ => branch(a == i.k),
                JGT => branch(a > i.k),
                JGE => branch(a >= i.k),
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    pub(in super::super) fn native(rules: &Rules, name: &str, args: [u64; 6]) -> u32 {
        run(&rules.compile(), AUDIT_ARCH, number(name).unwrap(), args)
    }

    #[test]
    fn comparisons() {
        use Comparison::*;
        let big = 5 << 32 | 7;
        for (comparison, value, argument, holds) in [
            (Eq, big, big, true),
            (Eq, big, 7, false),
            (Ne, big, 7, true),
            (Ne, big, big, false),
            (Gt, big, big, false),
            (Gt, big, big + 1, true),
            (Gt, big, 6 << 32, true),
            (Gt, big, 9, false),
            (Ge, big, big, true),
            (Ge, big, big - 1, false),
            (Lt, big, big, false),
            (Lt, big, big - 1, true),
            (Lt, big, 9, true),
            (Lt, big, 6 << 32, false),
            (Le, big, big, true),
            (Le, big, big + 1, false),
        ] {
            let mut rules = Rules::new(Action::Errno(1));
            let conditions = vec![Condition::new(0, Eq, 3), Condition::new(1, comparison, value)];
            rules.add("read", Rule { action: Action::Allow, conditions });
            let got = native(&rules, "read", [3, argument, 0, 0, 0, 0]) == libc::SECCOMP_RET_ALLOW;
            assert_eq!(got, holds, "{argument:#x} {comparison:?} {value:#x}");
            assert_ne!(native(&rules, "read", [4, argument, 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn foreign_architectures_are_refused() {
        let rules = Rules::new(Action::Allow);
        assert_eq!(run(&rules.compile(), 0x4000_0003, 1, [0; 6]), libc::SECCOMP_RET_ERRNO | 1);
    }
}
