//! nf_tables over netlink: batches of tables, chains, sets, elements and rules.
//!
//! A [`Batch`] is one transaction: [`commit`] applies all of it or nothing, and names the objects
//! the kernel refused. Rules are lists of [`Expr`]; matches are written with the short functions of [`expr`].

mod batch;
pub mod expr;
mod read;
pub mod set;

pub use batch::{Batch, Chain, Hook, commit, commit_all};
pub use expr::{Cmp, Expr, Reg, Verdict};
pub use read::{Ruleset, read};
pub use set::{Element, Set, concat};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4
    Ip,
    /// IPv6
    Ip6,
    /// Both
    Inet,
}

impl Family {
    /// `NFPROTO_*`
    pub fn number(self) -> u8 {
        match self {
            Family::Ip => 2,
            Family::Ip6 => 10,
            Family::Inet => 1,
        }
    }

    /// The word `nft` uses.
    pub fn name(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
        }
    }
}

/// Message numbers of the nf_tables subsystem.
pub(crate) mod message {
    pub const NEW_TABLE: u8 = 0;
    pub const DEL_TABLE: u8 = 2;
    pub const NEW_CHAIN: u8 = 3;
    pub const GET_CHAIN: u8 = 4;
    pub const DEL_CHAIN: u8 = 5;
    pub const NEW_RULE: u8 = 6;
    pub const GET_RULE: u8 = 7;
    pub const DEL_RULE: u8 = 8;
    pub const NEW_SET: u8 = 9;
    pub const GET_SET: u8 = 10;
    pub const DEL_SET: u8 = 11;
    pub const NEW_ELEMENT: u8 = 12;
    pub const GET_ELEMENT: u8 = 13;
    pub const DEL_ELEMENT: u8 = 14;
}
