//! Where a program is attached, and which address it accounts.

use acctd_common::contract::{SIDE_DEST, SIDE_SOURCE};

#[derive(Clone, Copy)]
pub(super) enum Hook {
    Ingress,
    Egress,
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Source,
    Dest,
}

impl Side {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Source => SIDE_SOURCE,
            Self::Dest => SIDE_DEST,
        }
    }
}
