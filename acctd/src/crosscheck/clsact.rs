//! The clsact qdisc, through which programs are attached where TCX is not used. Unlike a TCX link it
//! outlives the process, so acctd removes what it has made and finds what a killed acctd has left.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use aya::programs::TcAttachType;
use aya::programs::tc::{self, TcError};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// `linux/pkt_sched.h`: `TC_H_CLSACT`, and its `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// The qdisc of one interface, held for as long as acctd's filters are on it.
#[derive(Debug)]
pub struct Clsact {
    interface: String,
    index: u32,
    is_ours: bool,
    _claim: OwnedFd,
}

impl Clsact {
    /// Makes sure that the interface has the qdisc, and that no filter is on it that an acctd which
    /// was killed has left: one of `names`.
    pub fn ensure(interface: &str, index: u32, names: &[&str]) -> Result<Self> {
        let claim = claim(interface)?;
        for name in names {
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                match tc::qdisc_detach_program(interface, hook, name) {
                    Ok(()) => log::warn!(
                        "{interface}: removed the filter {name} that an acctd which was killed had left"
                    ),
                    // None, or no qdisc at all.
                    Err(_nothing_there) => {}
                }
            }
        }
        let is_ours = match tc::qdisc_add_clsact(interface) {
            Ok(()) => true,
            Err(TcError::AlreadyAttached) => false,
            Err(error) if is_there_already(&error) => false,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot add the clsact qdisc to {interface} (CONFIG_NET_CLS_ACT)")
                });
            }
        };
        Ok(Self {
            interface: interface.to_owned(),
            index,
            is_ours,
            _claim: claim,
        })
    }
}

impl Drop for Clsact {
    /// Somebody else's filters may be on it by now: then it stays.
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let removed =
            has_filters(self.index).and_then(|has| if has { Ok(()) } else { delete(self.index) });
        match removed {
            Ok(()) => {}
            // The interface is gone, and the qdisc with it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => {}
            Err(error) => log::warn!(
                "cannot remove the clsact qdisc from {}: {error}; do it by: tc qdisc del dev {} clsact",
                self.interface,
                self.interface
            ),
        }
    }
}

fn is_there_already(error: &TcError) -> bool {
    let TcError::NetlinkError(error) = error else {
        return false;
    };
    error.raw_os_error() == Some(libc::EEXIST)
}

/// A name that lives in the network namespace and goes with its holder, however that ends. So a
/// filter on an interface that nobody claims is a dead acctd's.
fn claim(interface: &str) -> Result<OwnedFd> {
    let name = format!("acctd/clsact/{interface}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::bind(&socket, &address) {
        Ok(()) => Ok(socket),
        Err(rustix::io::Errno::ADDRINUSE) => bail!(
            "another acctd cross-checks {interface} by clsact: stop it, or use --crosscheck-attach tcx"
        ),
        Err(error) => Err(error.into()),
    }
}

fn has_filters(index: u32) -> io::Result<bool> {
    for parent in [CLSACT_INGRESS, CLSACT_EGRESS] {
        let message = about(index, parent, 0);
        let request = RouteNetlinkMessage::GetTrafficFilter(message);
        let answers = ask(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        if answers > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn delete(index: u32) -> io::Result<()> {
    let mut message = about(index, CLSACT, CLSACT & 0xffff_0000);
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    let request = RouteNetlinkMessage::DelQueueDiscipline(message);
    ask(request, NLM_F_REQUEST | NLM_F_ACK).map(|_answers| ())
}

fn about(index: u32, parent: u32, handle: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle);
    message
}

/// Sends a request and counts the messages that answer it.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut n_answers = 0;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer: NetlinkMessage<RouteNetlinkMessage> =
                NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(n_answers),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(n_answers),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => n_answers += 1,
            }
            let length = (answer.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
