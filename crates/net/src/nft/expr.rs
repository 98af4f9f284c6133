//! Expressions of rules.

use crate::netlink::Messages;

/// A register: 16 of 4 bytes; longer values span the following ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

impl Reg {
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// The part of a packet an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// IP header.
    Network,
    /// TCP, UDP, SCTP header.
    Transport,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cmp {
    /// ==
    Eq,
    /// !=
    Neq,
    /// <
    Lt,
    /// <=
    Lte,
    /// >
    Gt,
    /// >=
    Gte,
}

/// What a rule or a map's element decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Ends all chains of this hook's table with acceptance.
    Accept,
    /// Drops the packet.
    Drop,
    /// Goes back to the calling chain.
    Return,
    /// Calls a chain.
    Jump(String),
    /// Goes to a chain without coming back.
    Goto(String),
}

/// Facts about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// Firewall mark.
    Mark,
    /// Name of the incoming link, 16 bytes.
    IifName,
    /// Name of the outgoing link, 16 bytes.
    OifName,
    /// Transport protocol, 1 byte.
    L4Proto,
}

/// Facts about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ct {
    /// Bit mask, see [`CT_NEW`] and its siblings.
    State,
    /// Bit mask; [`CT_DNAT`].
    Status,
}

/// `ct state established`
pub const CT_ESTABLISHED: u32 = 2;
/// `ct state related`
pub const CT_RELATED: u32 = 4;
/// `ct state new`
pub const CT_NEW: u32 = 8;
/// `ct status dnat`
pub const CT_DNAT: u32 = 1 << 5;
/// `fib … type local`
pub const LOCAL: u32 = 2;

const FULLY_RANDOM: u32 = 1 << 4;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Register.
        to: Reg,
        /// Header.
        base: Base,
        /// Offset in it.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Loads a fact about the packet.
    Meta(Meta, Reg),
    /// Sets the mark.
    SetMark(Reg),
    /// Loads a fact about the connection.
    Ct(Ct, Reg),
    /// Goes on only if a register compares.
    Cmp(Reg, Cmp, Vec<u8>),
    /// `register = register & mask ^ xor`
    Bitwise {
        /// Register, from and to.
        at: Reg,
        /// Mask.
        mask: Vec<u8>,
        /// Bits flipped afterwards.
        xor: Vec<u8>,
    },
    /// Loads a constant.
    Load(Reg, Vec<u8>),
    /// Decides.
    Verdict(Verdict),
    /// Goes on only if the set has (or, `inverted`, lacks) the key.
    InSet {
        /// Set.
        set: String,
        /// Key.
        key: Reg,
        /// Negates.
        inverted: bool,
    },
    /// Looks a verdict up and follows it; goes on if there is none.
    VerdictMap {
        /// Map.
        map: String,
        /// Key.
        key: Reg,
    },
    /// Looks a value up; goes on only if there is one.
    Map {
        /// Map.
        map: String,
        /// Key.
        key: Reg,
        /// Where the value goes.
        to: Reg,
    },
    /// Adds the key to a set or renews its timeout.
    Update {
        /// Set with flags for that.
        set: String,
        /// Key.
        key: Reg,
    },
    /// Changes the destination; the port stays if there is no register for it.
    Dnat {
        /// `NFPROTO_*` of the address.
        family: u8,
        /// Address.
        address: Reg,
        /// Port.
        port: Option<Reg>,
    },
    /// Changes the source.
    Snat {
        /// `NFPROTO_*` of the address.
        family: u8,
        /// Address.
        address: Reg,
    },
    /// Changes the source to the outgoing link's address; random ports.
    Masquerade,
    /// Changes the destination to this machine.
    Redirect(Option<Reg>),
    /// Loads the type of the destination (or source) address; see [`LOCAL`].
    FibType {
        /// Source instead of destination.
        source: bool,
        /// Register.
        to: Reg,
    },
    /// Loads a random number below `modulus`.
    Random {
        /// Bound.
        modulus: u32,
        /// Register.
        to: Reg,
    },
    /// Counts packets and bytes.
    Counter,
    /// Answers with ICMP port unreachable.
    Reject,
    /// Answers with a TCP reset.
    Reset,
}

impl Expr {
    /// Writes the expression as one list element.
    pub(crate) fn write(&self, list: &mut Messages) {
        const ELEMENT: u16 = 1;
        list.nest(ELEMENT, |m| {
            m.text(1, self.name()).nest(2, |m| self.data(m));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expr::Payload { .. } => "payload",
            Expr::Meta(..) | Expr::SetMark(_) => "meta",
            Expr::Ct(..) => "ct",
            Expr::Cmp(..) => "cmp",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Load(..) | Expr::Verdict(_) => "immediate",
            Expr::InSet { .. } | Expr::VerdictMap { .. } | Expr::Map { .. } => "lookup",
            Expr::Update { .. } => "dynset",
            Expr::Dnat { .. } | Expr::Snat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Redirect(_) => "redir",
            Expr::FibType { .. } => "fib",
            Expr::Random { .. } => "numgen",
            Expr::Counter => "counter",
            Expr::Reject | Expr::Reset => "reject",
        }
    }

    fn data(&self, m: &mut Messages) {
        match self {
            Expr::Payload { to, base, offset, len } => {
                let base = if *base == Base::Network { 1 } else { 2 };
                m.network(1, to.number()).network(2, base).network(3, *offset).network(4, *len);
            }
            Expr::Meta(key, to) => {
                let key = match key {
                    Meta::Mark => 3,
                    Meta::IifName => 6,
                    Meta::OifName => 7,
                    Meta::L4Proto => 16,
                };
                m.network(1, to.number()).network(2, key);
            }
            Expr::SetMark(from) => {
                m.network(2, 3).network(3, from.number());
            }
            Expr::Ct(key, to) => {
                m.network(1, to.number()).network(2, if *key == Ct::State { 0 } else { 2 });
            }
            Expr::Cmp(from, how, value) => {
                m.network(1, from.number()).network(2, *how as u32);
                value_data(m, 3, value);
            }
            Expr::Bitwise { at, mask, xor } => {
                m.network(1, at.number()).network(2, at.number()).network(3, mask.len() as u32);
                value_data(m, 4, mask);
                value_data(m, 5, xor);
            }
            Expr::Load(to, value) => {
                m.network(1, to.number());
                value_data(m, 2, value);
            }
            Expr::Verdict(verdict) => {
                m.network(1, 0).nest(2, |m| verdict.write(m));
            }
            Expr::InSet { set, key, inverted } => {
                m.text(1, set).network(2, key.number());
                if *inverted {
                    m.network(5, 1);
                }
            }
            Expr::VerdictMap { map, key } => {
                m.text(1, map).network(2, key.number()).network(3, 0);
            }
            Expr::Map { map, key, to } => {
                m.text(1, map).network(2, key.number()).network(3, to.number());
            }
            Expr::Update { set, key } => {
                m.text(1, set).network(3, 1).network(4, key.number());
            }
            Expr::Dnat { family, address, port } => {
                m.network(1, 1).network(2, u32::from(*family)).network(3, address.number());
                if let Some(port) = port {
                    m.network(5, port.number());
                }
            }
            Expr::Snat { family, address } => {
                m.network(1, 0).network(2, u32::from(*family)).network(3, address.number());
            }
            Expr::Masquerade => {
                m.network(1, FULLY_RANDOM);
            }
            Expr::Redirect(port) => {
                if let Some(port) = port {
                    m.network(1, port.number());
                }
            }
            Expr::FibType { source, to } => {
                m.network(1, to.number()).network(2, 3).network(3, if *source { 1 } else { 2 });
            }
            Expr::Random { modulus, to } => {
                m.network(1, to.number()).network(2, *modulus).network(3, 1).network(4, 0);
            }
            Expr::Counter => {}
            Expr::Reject => {
                m.network(1, 0).attr(2, &[3]);
            }
            Expr::Reset => {
                m.network(1, 1);
            }
        }
    }
}

impl Verdict {
    /// Writes the verdict as the content of a data attribute.
    pub(crate) fn write(&self, m: &mut Messages) {
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3i32, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        m.nest(2, |m| {
            m.network(1, code as u32);
            if let Some(chain) = chain {
                m.text(2, chain);
            }
        });
    }
}

pub(crate) fn value_data(m: &mut Messages, kind: u16, value: &[u8]) {
    m.nest(kind, |m| {
        m.attr(1, value);
    });
}

/// Loads the IPv4 source address.
pub fn source(to: Reg) -> Expr {
    Expr::Payload { to, base: Base::Network, offset: 12, len: 4 }
}

/// Loads the IPv4 destination address.
pub fn destination(to: Reg) -> Expr {
    Expr::Payload { to, base: Base::Network, offset: 16, len: 4 }
}

/// Loads the destination port of TCP, UDP or SCTP.
pub fn destination_port(to: Reg) -> Expr {
    Expr::Payload { to, base: Base::Transport, offset: 2, len: 2 }
}

/// Loads the transport protocol.
pub fn protocol(to: Reg) -> Expr {
    Expr::Meta(Meta::L4Proto, to)
}

/// Matches an IPv4 network at a register that holds an address.
pub fn in_network(at: Reg, network: &crate::Cidr, inside: bool) -> Vec<Expr> {
    let mask = crate::ipam::v4_mask(network.prefix).to_be_bytes().to_vec();
    let how = if inside { Cmp::Eq } else { Cmp::Neq };
    vec![Expr::Bitwise { at, mask, xor: vec![0; 4] }, Expr::Cmp(at, how, crate::route::octets(network.network()))]
}

/// Sets bits of the mark.
pub fn mark(bits: u32) -> Vec<Expr> {
    let at = Reg(0);
    vec![
        Expr::Meta(Meta::Mark, at),
        Expr::Bitwise { at, mask: (!bits).to_ne_bytes().to_vec(), xor: bits.to_ne_bytes().to_vec() },
        Expr::SetMark(at),
    ]
}

/// Clears bits of the mark.
pub fn unmark(bits: u32) -> Vec<Expr> {
    let at = Reg(0);
    vec![
        Expr::Meta(Meta::Mark, at),
        Expr::Bitwise { at, mask: (!bits).to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::SetMark(at),
    ]
}

/// Matches a mark that has these bits.
pub fn marked(bits: u32) -> Vec<Expr> {
    let at = Reg(0);
    let bytes = bits.to_ne_bytes().to_vec();
    vec![
        Expr::Meta(Meta::Mark, at),
        Expr::Bitwise { at, mask: bytes.clone(), xor: vec![0; 4] },
        Expr::Cmp(at, Cmp::Eq, bytes),
    ]
}

/// Matches any of the bits of a connection's state or status.
pub fn connection(what: Ct, bits: u32) -> Vec<Expr> {
    let at = Reg(0);
    vec![
        Expr::Ct(what, at),
        Expr::Bitwise { at, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp(at, Cmp::Neq, vec![0; 4]),
    ]
}

/// Matches packets to (or from) an address of this machine.
pub fn local(source: bool) -> Vec<Expr> {
    vec![Expr::FibType { source, to: Reg(0) }, Expr::Cmp(Reg(0), Cmp::Eq, LOCAL.to_ne_bytes().to_vec())]
}
