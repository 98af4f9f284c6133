//! Batches: what is changed in one transaction.

use super::expr::Expr;
use super::set::{Element, Set};
use super::{Family, message};
use crate::error::{Error, Result};
use crate::netlink::{self, ACK, APPEND, CREATE, Messages, Socket};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Attributes are at most 64 KiB, so elements go in several messages.
const ELEMENTS_MAX: usize = 48 << 10;
/// Above this a batch is sent in several transactions by [`commit_all`].
const TRANSACTION_MAX: usize = 8 << 20;

/// Where a base chain is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// After routing.
    Postrouting,
}

/// A chain; a base chain if it has a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// `("filter" or "nat" or "route", hook, priority)`
    pub base: Option<(&'static str, Hook, i32)>,
}

impl Chain {
    /// A chain that is jumped to.
    pub fn regular(name: impl Into<String>) -> Chain {
        Chain { name: name.into(), base: None }
    }

    /// A chain the kernel calls, with policy accept.
    pub fn base(name: impl Into<String>, kind: &'static str, hook: Hook, priority: i32) -> Chain {
        Chain { name: name.into(), base: Some((kind, hook, priority)) }
    }
}

/// Changes of one table that are applied together.
#[derive(Clone, Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Messages,
    set_id: u32,
    /// Offsets at which the batch may be cut.
    cuts: Vec<usize>,
}

impl Batch {
    /// An empty batch for a table.
    pub fn new(family: Family, table: impl Into<String>) -> Batch {
        Batch { family, table: table.into(), messages: Messages::default(), set_id: 0, cuts: Vec::new() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Says that what comes next depends on nothing half-done before: a large batch may be cut here.
    pub fn allow_cut(&mut self) {
        self.cuts.push(self.messages.len());
    }

    /// Appends another batch of the same table, with the places where it may be cut.
    pub fn append(&mut self, other: &Batch) {
        let at = self.messages.len();
        self.cuts.push(at);
        self.cuts.extend(other.cuts.iter().map(|cut| at + cut));
        self.messages.raw(other.messages.as_bytes());
    }

    /// Makes the table; nothing if it is there.
    pub fn add_table(&mut self) {
        self.begin(message::NEW_TABLE, CREATE);
        self.messages.text(1, &self.table).network(2, 0).end();
    }

    /// Removes the table with all it has, also if it is not there.
    pub fn delete_table(&mut self) {
        self.add_table();
        self.begin(message::DEL_TABLE, 0);
        self.messages.text(1, &self.table).end();
    }

    /// Makes a chain; nothing if it is there.
    pub fn add_chain(&mut self, chain: &Chain) {
        self.begin(message::NEW_CHAIN, CREATE);
        self.messages.text(1, &self.table).text(3, &chain.name);
        if let Some((kind, hook, priority)) = chain.base {
            self.messages
                .nest(4, |m| {
                    m.network(1, hook as u32).network(2, priority as u32);
                })
                .network(5, 1)
                .text(7, kind);
        }
        self.messages.end();
    }

    /// Removes a chain that nothing refers to.
    pub fn delete_chain(&mut self, name: &str) {
        self.begin(message::DEL_CHAIN, 0);
        self.messages.text(1, &self.table).text(3, name).end();
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.begin(message::DEL_RULE, 0);
        self.messages.text(1, &self.table).text(2, name).end();
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expr]) {
        self.begin(message::NEW_RULE, CREATE | APPEND);
        self.messages.text(1, &self.table).text(2, chain);
        self.messages.nest(4, |m| expressions.iter().for_each(|e| e.write(m))).end();
    }

    /// Makes a set; nothing if it is there.
    pub fn add_set(&mut self, set: &Set) {
        self.set_id += 1;
        self.begin(message::NEW_SET, CREATE);
        self.messages.text(1, &self.table).text(2, &set.name);
        set.write(&mut self.messages, self.set_id);
        self.messages.end();
    }

    /// Removes a set that no rule refers to.
    pub fn delete_set(&mut self, name: &str) {
        self.begin(message::DEL_SET, 0);
        self.messages.text(1, &self.table).text(2, name).end();
    }

    /// Adds elements; those that are there already with the same value stay.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(message::NEW_ELEMENT, CREATE, set, elements);
    }

    /// Removes elements, which must be there.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(message::DEL_ELEMENT, 0, set, elements);
    }

    /// Removes all elements.
    pub fn flush_set(&mut self, set: &str) {
        self.begin(message::DEL_ELEMENT, 0);
        self.messages.text(1, &self.table).text(2, set).end();
    }

    fn elements(&mut self, kind: u8, flags: u16, set: &str, mut elements: &[Element]) {
        while !elements.is_empty() {
            let mut size = 0;
            let fit = elements.iter().take_while(|e| {
                size += e.size();
                size <= ELEMENTS_MAX
            });
            let (now, later) = elements.split_at(fit.count().max(1));
            self.begin(kind, flags);
            self.messages.text(1, &self.table).text(2, set);
            self.messages.nest(3, |m| now.iter().for_each(|e| e.write(m))).end();
            elements = later;
        }
    }

    fn begin(&mut self, kind: u8, flags: u16) {
        // The acknowledgement is asked for by the last message only, when the batch is sent.
        self.messages.begin(SUBSYSTEM << 8 | u16::from(kind), flags, &[self.family.number(), 0, 0, 0]);
    }

    /// Cuts the batch into transactions.
    fn parts(&self) -> Vec<&[u8]> {
        let bytes = self.messages.as_bytes();
        let (mut parts, mut start, mut last) = (Vec::new(), 0, 0);
        for &cut in self.cuts.iter().chain([&bytes.len()]) {
            if cut - start > TRANSACTION_MAX && last > start {
                parts.push(&bytes[start..last]);
                start = last;
            }
            last = cut;
        }
        if bytes.len() > start {
            parts.push(&bytes[start..]);
        }
        parts
    }
}

/// Applies a batch in one transaction.
pub fn commit(socket: &mut Socket, batch: &Batch) -> Result<()> {
    if batch.is_empty() { Ok(()) } else { transaction(socket, batch.messages.as_bytes()) }
}

/// Applies a batch, a very large one in several transactions cut where [`Batch::allow_cut`] was called.
pub fn commit_all(socket: &mut Socket, batch: &Batch) -> Result<()> {
    batch.parts().into_iter().try_for_each(|part| transaction(socket, part))
}

fn transaction(socket: &mut Socket, content: &[u8]) -> Result<()> {
    let header = [0, 0, 0, SUBSYSTEM as u8];
    let mut messages = Messages::default();
    messages.begin(BATCH_BEGIN, 0, &header).end();
    messages.raw(content);
    // Kernels before 6.10 acknowledge no end of a batch: the last change asks for it.
    acknowledge_last(&mut messages, content.len());
    messages.begin(BATCH_END, 0, &header).end();
    let refusals = socket.transact(messages)?;
    let Some(first) = refusals.first() else { return Ok(()) };
    let what = netlink::answers(content).nth(first.index.wrapping_sub(1) as usize).map(|m| describe(m.kind, m.payload));
    let more = if refusals.len() > 1 { format!(" and {} more", refusals.len() - 1) } else { String::new() };
    let doing = format!("{}{more}", what.unwrap_or_else(|| "apply an nftables transaction".into()));
    Err(Error::Kernel { doing, errno: first.errno, text: first.text.clone() })
}

fn acknowledge_last(messages: &mut Messages, content: usize) {
    let begin = messages.len() - content;
    let (mut at, mut last) = (begin, begin);
    while let Some(length) = netlink::u32_at(messages.as_bytes(), at) {
        last = at;
        at += (length as usize).next_multiple_of(4).max(netlink::HEADER);
    }
    messages.set_flags(last, ACK);
}

/// Says what a refused message was about, read back from its own bytes.
fn describe(kind: u16, payload: &[u8]) -> String {
    let body = payload.get(4..).unwrap_or_default();
    let text = |attribute| netlink::attribute(body, attribute).map(netlink::text).unwrap_or_default();
    let table = text(1);
    let (verb, name) = match (kind & 0xff) as u8 {
        message::NEW_TABLE => ("add", String::new()),
        message::DEL_TABLE => ("delete", String::new()),
        message::NEW_CHAIN => ("add", format!(" chain {:?}", text(3))),
        message::DEL_CHAIN => ("delete", format!(" chain {:?}", text(3))),
        message::NEW_RULE => ("add", format!(" rule of chain {:?}", text(2))),
        message::DEL_RULE => ("delete", format!(" rules of chain {:?}", text(2))),
        message::NEW_SET => ("add", format!(" set {:?}", text(2))),
        message::DEL_SET => ("delete", format!(" set {:?}", text(2))),
        message::NEW_ELEMENT => ("add", format!(" elements of set {:?}", text(2))),
        message::DEL_ELEMENT => ("delete", format!(" elements of set {:?}", text(2))),
        other => ("apply", format!(" message {other}")),
    };
    format!("{verb} nftables table {table:?}{name}")
}
