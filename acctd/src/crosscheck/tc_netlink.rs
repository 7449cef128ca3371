//! Qdiscs and filters over netlink, as far as `clsact` needs them, and requests to rtnetlink in general.
//! Unknown attributes are skipped: filters of any kind may exist, and of most only the header matters.

use std::io;
use std::os::fd::OwnedFd;

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
/// The parent of ingress filters.
pub(crate) const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// The parent of egress filters.
pub(crate) const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// `linux/rtnetlink.h` and `linux/pkt_cls.h`.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
/// `linux/tc_act/tc_mirred.h`, and the offset of `eaction` in `struct tc_mirred`.
const TCA_MIRRED_PARMS: u16 = 2;
const EACTION_AT: usize = 20;
const TCA_EGRESS_REDIR: u32 = 1;
const TCA_INGRESS_REDIR: u32 = 3;
/// `struct tcmsg`.
const TCMSG_BYTES: usize = 20;
/// `linux/netlink.h`.
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;

/// A filter, or the head of a priority's filters.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// `bpf`, `u32`, …
    pub(crate) kind: String,
    /// The name of a `bpf` filter.
    pub(crate) name: String,
    /// Whether it redirects packets to another interface. False for eBPF: netlink does not show what a program
    /// does.
    pub(crate) redirects: bool,
    /// The id of a `bpf` filter's program, otherwise 0.
    pub(crate) program: u32,
    /// Packets start in chain 0, and reach others only if a filter sends them there.
    pub(crate) chain: u32,
    header: TcHeader,
}

impl Filter {
    /// Lower priorities run first.
    pub(crate) fn priority(&self) -> u16 {
        (self.header.info >> 16) as u16
    }

    /// Unique within a priority; 0 for the head.
    pub(crate) fn handle(&self) -> u32 {
        self.header.handle.into()
    }

    /// Whether packets may reach it: heads of priorities and tables of `u32` match none.
    pub(crate) fn takes_packets(&self) -> bool {
        /// 0 in these bits of the handle: a table of `u32`; otherwise a filter in one.
        const NUMBER_IN_TABLE: u32 = 0xfff;
        let is_table = self.kind == "u32" && self.handle() & NUMBER_IN_TABLE == 0;
        self.chain == 0 && self.handle() != 0 && !is_table
    }

    pub(crate) fn delete(&self) -> io::Result<()> {
        let mut message = TcMessage::default();
        message.header = self.header.clone();
        let request = RouteNetlinkMessage::DelTrafficFilter(message);
        self::request(request, NLM_F_REQUEST | NLM_F_ACK, |_| Ok(())).map(drop)
    }

    /// Also reads a qdisc, whose messages have the same layout.
    fn parse(payload: &[u8]) -> io::Result<Self> {
        let mut filter = Self {
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
                TCA_KIND => filter.kind = text(value),
                TCA_CHAIN => filter.chain = number(value).unwrap_or(0),
                TCA_OPTIONS if filter.kind == "bpf" => {
                    for option in self::attributes(value) {
                        match option? {
                            (TCA_BPF_NAME, name) => filter.name = text(name),
                            (TCA_BPF_ID, id) => filter.program = number(id).unwrap_or(0),
                            _ => {}
                        }
                    }
                }
                TCA_OPTIONS => filter.redirects = has_redirect(value),
                _ => {}
            }
        }
        Ok(filter)
    }
}

/// The filters of [`CLSACT_INGRESS`] or [`CLSACT_EGRESS`]; none if there is no qdisc.
pub(crate) fn filters(index: u32, parent: u32) -> io::Result<Vec<Filter>> {
    let request = RouteNetlinkMessage::GetTrafficFilter(tc_message(index, parent, 0));
    self::request(request, NLM_F_REQUEST | NLM_F_DUMP, Filter::parse)
}

/// `clsact` or `ingress`, if the interface has one of them.
pub(crate) fn qdisc_kind(index: u32) -> io::Result<Option<String>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(tc_message(index, 0, 0));
    let qdiscs = self::request(request, NLM_F_REQUEST | NLM_F_DUMP, Filter::parse)?;
    let is_wanted = |qdisc: &Filter| {
        qdisc.header.index.cast_unsigned() == index && u32::from(qdisc.header.parent) == CLSACT
    };
    Ok(qdiscs.into_iter().find(is_wanted).map(|qdisc| qdisc.kind))
}

/// Removes the clsact qdisc and its filters.
pub(crate) fn delete_clsact(index: u32) -> io::Result<()> {
    let mut message = tc_message(index, CLSACT, CLSACT & 0xffff_0000);
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    let request = RouteNetlinkMessage::DelQueueDiscipline(message);
    self::request(request, NLM_F_REQUEST | NLM_F_ACK, |_| Ok(())).map(drop)
}

fn tc_message(index: u32, parent: u32, handle: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle);
    message
}

/// Whether one of a filter's actions is a redirection. Each kind of filter has another attribute for its
/// actions; no other attribute contains an action called `mirred`.
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
                    let action = value.get(EACTION_AT..).and_then(number);
                    kind == TCA_MIRRED_PARMS
                        && matches!(action, Some(TCA_EGRESS_REDIR | TCA_INGRESS_REDIR))
                })
        })
}

/// The attributes up to the first that is malformed.
fn nested(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(value).map_while(Result::ok)
}

/// The attributes of a message or of another attribute, each with its type and value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    const HEADER: usize = 4;
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute.map_err(io::Error::other)?;
        let (kind, end) = (attribute.kind(), HEADER + attribute.value_length());
        let value = attribute.into_inner().get(HEADER..end);
        Ok((kind, value.unwrap_or_default()))
    })
}

/// A number in host byte order.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A string that ends with a zero byte.
pub(crate) fn text(value: &[u8]) -> String {
    let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Sends a request to rtnetlink and parses the payload of each answer.
pub(crate) fn request<T>(
    request: RouteNetlinkMessage,
    flags: u16,
    parse: impl Fn(&[u8]) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    request_on(Socket::new(NETLINK_ROUTE)?, request, flags, parse)
}

/// As [`request`], for a dump that the kernel filters by the request's fields (Linux 4.20).
pub(super) fn request_strict<T>(
    request: RouteNetlinkMessage,
    flags: u16,
    parse: impl Fn(&[u8]) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_netlink_get_strict_chk(true)?;
    request_on(socket, request, flags, parse)
}

fn request_on<T>(
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

/// `None` if there is no interface of this name.
pub(crate) fn index_of(interface: &str) -> Option<u32> {
    rustix::net::netdevice::name_to_index(&any_socket()?, interface).ok()
}

/// `None` if there is no interface of this index.
pub(crate) fn name_of(index: u32) -> Option<String> {
    let name = rustix::net::netdevice::index_to_name_inlined(&any_socket()?, index).ok()?;
    Some(name.as_str().to_owned())
}

fn any_socket() -> Option<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    socket.ok()
}
