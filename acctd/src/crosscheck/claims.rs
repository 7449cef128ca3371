//! Which programs are those of a living acctd. What is attached over netlink outlives its process, so an
//! acctd has to tell what a killed one has left from what another one needs; and a program of acctd's in
//! front of acctd's own programs hides nothing.
//!
//! The kernel is asked, and it alone: for each of its programs an acctd holds a netlink socket whose port
//! id stands for the program's id. There is one such port in a network namespace, it goes with its holder,
//! and anybody may see whether it is taken, whatever files he shares with the holder.
//!
//! Anybody may take a port, too. That keeps no acctd from its work: a program whose port is taken already
//! is claimed by that. All that comes of it is that what a killed acctd has left stays for longer.

use std::io;

use log::debug;
use netlink_sys::protocols::NETLINK_USERSOCK;
use netlink_sys::{Socket, SocketAddr};

/// Far from process ids, which are what other programs' sockets have for their ports, and below those
/// that the kernel gives to the others.
const FIRST_PORT: u32 = 0x6000_0000;
/// Programs have ids in their order, so two of a machine differ in these bits.
const ID_BITS: u32 = 0x0fff_ffff;

/// A program that is claimed, for as long as this lives.
#[derive(Debug)]
pub struct Claim {
    _port: Option<Socket>,
}

impl Claim {
    /// Claims a program of this process.
    #[must_use]
    pub fn of(program: u32) -> Self {
        match bind(program) {
            Ok(port) => Self { _port: port },
            Err(error) => {
                debug!("cannot claim program {program}: {error}");
                Self { _port: None }
            }
        }
    }
}

/// Whether a running acctd in this network namespace owns this program. If that is unknown, the answer is yes.
#[must_use]
pub fn is_claimed(program: u32) -> bool {
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
    fn a_claim_lives_as_long_as_its_holder_whoever_else_has_it() {
        // No kernel has loaded so many.
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
