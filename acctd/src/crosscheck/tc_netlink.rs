//! Qdiscs and filters over netlink, as far as the clsact way needs them, and how to ask rtnetlink for
//! anything. Answers are read leniently: filters of any kind may be there, and of most only the header
//! matters.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `linux/pkt_sched.h`: `TC_H_CLSACT`, and its `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const CLSACT: u32 = 0xffff_fff1;
/// Where ingress filters are.
pub const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// Where egress filters are.
pub const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// `linux/rtnetlink.h` and `linux/pkt_cls.h`.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
/// `linux/tc_act/tc_mirred.h`, and where in `struct tc_mirred` it says what it does.
const TCA_MIRRED_PARMS: u16 = 2;
const EACTION_AT: usize = 20;
const TCA_EGRESS_REDIR: u32 = 1;
const TCA_INGRESS_REDIR: u32 = 3;
/// `struct tcmsg`.
const TCMSG_BYTES: usize = 20;
/// `linux/netlink.h`.
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;

/// A filter, or the head of those of one priority.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of which kind: `bpf`, `u32`.
    pub kind: String,
    /// The name of a `bpf` filter.
    pub name: String,
    /// It sends packets to another interface, from which an `ifb` gives them back: not one of eBPF, whose action is
    /// the program's secret.
    pub redirects: bool,
    /// The id of its program; 0 for other kinds.
    pub program: u32,
    /// Packets begin with chain 0, and come to others only if a filter sends them there.
    pub chain: u32,
    header: TcHeader,
}

impl Filter {
    /// The lower, the earlier.
    #[must_use]
    pub fn priority(&self) -> u16 {
        (self.header.info >> 16) as u16
    }

    /// Unique within its kind and priority; 0 is the head.
    #[must_use]
    pub fn handle(&self) -> u32 {
        self.header.handle.into()
    }

    /// Whether packets may come to it before they come to a later one: the heads of priorities and the tables
    /// of `u32` take none.
    #[must_use]
    pub fn takes_packets(&self) -> bool {
        /// A table of `u32`; a filter in it has a number in the lower bits.
        const NUMBER_IN_TABLE: u32 = 0xfff;
        let is_table = self.kind == "u32" && self.handle() & NUMBER_IN_TABLE == 0;
        self.chain == 0 && self.handle() != 0 && !is_table
    }

    /// Takes it off.
    pub fn delete(&self) -> io::Result<()> {
        let mut message = TcMessage::default();
        message.header = self.header.clone();
        let request = RouteNetlinkMessage::DelTrafficFilter(message);
        ask(request, NLM_F_REQUEST | NLM_F_ACK, Answer::parse).map(drop)
    }
}

/// The filters of [`CLSACT_INGRESS`] or [`CLSACT_EGRESS`]; none where there is no qdisc.
pub fn filters(index: u32, parent: u32) -> io::Result<Vec<Filter>> {
    let request = RouteNetlinkMessage::GetTrafficFilter(about(index, parent, 0));
    let answers = ask(request, NLM_F_REQUEST | NLM_F_DUMP, Answer::parse)?;
    Ok(answers
        .into_iter()
        .map(|answer| Filter {
            kind: answer.kind,
            name: answer.name,
            redirects: answer.redirects,
            program: answer.program,
            chain: answer.chain,
            header: answer.header,
        })
        .collect())
}

/// The kind of the qdisc in the place of clsact: `clsact` or `ingress`.
pub fn qdisc_kind(index: u32) -> io::Result<Option<String>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(about(index, 0, 0));
    let answers = ask(request, NLM_F_REQUEST | NLM_F_DUMP, Answer::parse)?;
    Ok(answers
        .into_iter()
        .find(|answer| {
            answer.header.index.cast_unsigned() == index
                && u32::from(answer.header.parent) == CLSACT
        })
        .map(|answer| answer.kind))
}

/// Removes the clsact qdisc with all that is on it.
pub fn delete_clsact(index: u32) -> io::Result<()> {
    let mut message = about(index, CLSACT, CLSACT & 0xffff_0000);
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    let request = RouteNetlinkMessage::DelQueueDiscipline(message);
    ask(request, NLM_F_REQUEST | NLM_F_ACK, Answer::parse).map(drop)
}

fn about(index: u32, parent: u32, handle: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle);
    message
}

struct Answer {
    header: TcHeader,
    kind: String,
    name: String,
    redirects: bool,
    program: u32,
    chain: u32,
}

impl Answer {
    fn parse(payload: &[u8]) -> io::Result<Self> {
        let mut answer = Self {
            header: TcHeader::parse(payload).map_err(io::Error::other)?,
            kind: String::new(),
            name: String::new(),
            redirects: false,
            program: 0,
            chain: 0,
        };
        let attributes = payload.get(TCMSG_BYTES..).unwrap_or_default();
        for attribute in self::attributes(attributes) {
            let (kind, value) = attribute?;
            match kind {
                TCA_KIND => answer.kind = text(value),
                TCA_CHAIN => answer.chain = number(value).unwrap_or(0),
                TCA_OPTIONS if answer.kind == "bpf" => {
                    for option in self::attributes(value) {
                        match option? {
                            (TCA_BPF_NAME, name) => answer.name = text(name),
                            (TCA_BPF_ID, id) => answer.program = number(id).unwrap_or(0),
                            _ => {}
                        }
                    }
                }
                TCA_OPTIONS => answer.redirects = has_redirect(value),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Whether there is a redirection among a filter's actions. Each kind of filter has an attribute of its own for them; what
/// is in the others makes no action of that name.
fn has_redirect(options: &[u8]) -> bool {
    nested(options)
        .flat_map(|(_, actions)| nested(actions))
        .any(|(_, action)| {
            let is_mirred = nested(action)
                .any(|(kind, value)| kind == TCA_ACT_KIND && value.starts_with(b"mirred\0"));
            let options = nested(action).filter(|(kind, _)| *kind == TCA_ACT_OPTIONS);
            let mut settings = options.flat_map(|(_, options)| nested(options));
            is_mirred
                && settings.any(|(kind, value)| {
                    let does = value.get(EACTION_AT..).and_then(number);
                    kind == TCA_MIRRED_PARMS
                        && matches!(does, Some(TCA_EGRESS_REDIR | TCA_INGRESS_REDIR))
                })
        })
}

/// The attributes up to the first that is malformed.
fn nested(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(value).map_while(Result::ok)
}

/// The attributes in a message or in another attribute: the type and the value of each.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    const HEADER: usize = 4;
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute.map_err(io::Error::other)?;
        let (kind, end) = (attribute.kind(), HEADER + attribute.value_length());
        let value = attribute.into_inner().get(HEADER..end);
        Ok((kind, value.unwrap_or_default()))
    })
}

/// The number at the front of a value, in host byte order.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A string that ends with a zero byte.
pub(crate) fn text(value: &[u8]) -> String {
    let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Sends a request and takes what answers it.
pub(crate) fn ask<T>(
    request: RouteNetlinkMessage,
    flags: u16,
    parse: impl Fn(&[u8]) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    ask_by(Socket::new(NETLINK_ROUTE)?, request, flags, parse)
}

/// The same for a dump that the kernel narrows down to what the request names (Linux 4.20).
pub(super) fn ask_strictly<T>(
    request: RouteNetlinkMessage,
    flags: u16,
    parse: impl Fn(&[u8]) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_netlink_get_strict_chk(true)?;
    ask_by(socket, request, flags, parse)
}

fn ask_by<T>(
    mut socket: Socket,
    request: RouteNetlinkMessage,
    flags: u16,
    parse: impl Fn(&[u8]) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let buffer = NetlinkBuffer::new_checked(&rest).map_err(io::Error::other)?;
            match buffer.message_type() {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                        .map_err(io::Error::other)?;
                    return match message.payload {
                        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                        _ => Ok(answers),
                    };
                }
                _ => answers.push(parse(buffer.payload())?),
            }
            let length = (buffer.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// The index of an interface, while there is one of this name.
#[must_use]
pub fn index_of(interface: &str) -> Option<u32> {
    let any = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    rustix::net::netdevice::name_to_index(&any, interface).ok()
}
