//! Which programs belong to a running acctd. A filter outlives its process, so acctd must distinguish the
//! filters of a killed acctd, which it removes, from those of a running one. And another acctd's program that
//! runs before acctd's hides no packets.
//!
//! Only the kernel's state decides: for each of its programs, an acctd holds a netlink socket whose port id
//! is made from the program's id. A port has one holder in a network namespace, and is free when the holder
//! ends. Any process can see whether a port is in use, without sharing files with its holder.
//!
//! Any process can bind such a port, too. Then acctd takes the program for one of a running acctd. The only
//! effect is that a filter of a killed acctd stays.

use std::io;

use log::debug;
use netlink_sys::protocols::NETLINK_USERSOCK;
use netlink_sys::{Socket, SocketAddr};

/// Above all process ids, which most programs use as port ids, and below those that the kernel chooses for
/// the others.
const FIRST_PORT: u32 = 0x6000_0000;
/// The kernel numbers programs in order, so two programs of a machine differ in these bits.
const ID_BITS: u32 = 0x0fff_ffff;

/// Claims a program until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    _port: Option<Socket>,
}

impl Claim {
    pub(crate) fn of(program: u32) -> Self {
        match bind(program) {
            Ok(port) => Self { _port: port },
            Err(error) => {
                debug!("cannot claim program {program}: {error}");
                Self { _port: None }
            }
        }
    }
}

/// Whether a running acctd in this network namespace owns this program; true if that is unknown.
pub(crate) fn is_claimed(program: u32) -> bool {
    !matches!(bind(program), Ok(Some(_free)))
}

/// `None` if the port is taken.
fn bind(program: u32) -> io::Result<Option<Socket>> {
    let mut socket = Socket::new(NETLINK_USERSOCK)?;
    let port = FIRST_PORT | (program & ID_BITS);
    match socket.bind(&SocketAddr::new(port, 0)) {
        Ok(()) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lasts_until_its_holder_drops_it() {
        // No kernel reaches this id.
        const PROGRAM: u32 = ID_BITS - 7;
        assert!(!is_claimed(PROGRAM));
        let claim = Claim::of(PROGRAM);
        let second = Claim::of(PROGRAM);
        assert!(is_claimed(PROGRAM) && !is_claimed(PROGRAM - 1));
        drop(second);
        assert!(is_claimed(PROGRAM));
        drop(claim);
        assert!(!is_claimed(PROGRAM));
    }
}
