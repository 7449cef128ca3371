//! The fault matrix: the promises of docs/what-can-be-lost.md, line by line.

mod directory;
mod disk;
mod flood;
mod kernel;
mod killed;
mod privilege;
mod restart;
mod rules_gone;
mod user;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        killed::CASES,
        restart::CASES,
        flood::CASES,
        directory::CASES,
        disk::CASES,
        kernel::CASES,
        privilege::CASES,
        rules_gone::CASES,
        user::CASES,
    ]
    .concat()
}
