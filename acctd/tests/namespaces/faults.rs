//! The fault matrix: the promises of docs/what-can-be-lost.md, line by line.

mod checkpoints;
mod directory;
mod disk;
mod flood;
mod kept_sockets;
mod kernel;
mod killed;
mod manager;
mod named_namespace;
mod other_users;
mod privilege;
mod restart;
mod rules_gone;
mod user;

pub(crate) use manager::{HAND_OVER, hand_over_from};

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        killed::CASES,
        checkpoints::CASES,
        restart::CASES,
        kept_sockets::CASES,
        flood::CASES,
        directory::CASES,
        disk::CASES,
        kernel::CASES,
        named_namespace::CASES,
        privilege::CASES,
        other_users::CASES,
        rules_gone::CASES,
        user::CASES,
    ]
    .concat()
}
