//! Writes closed intervals to files that survive a crash.

pub(crate) mod atomic_file;
pub mod checkpoint;
pub(crate) mod commit;
pub mod csv;
pub(crate) mod directory_lock;
pub(crate) mod journal;
pub mod journal_line;
pub(crate) mod log_directory;
pub(crate) mod merge;
pub(crate) mod recovery;
pub mod rows;
pub(crate) mod writer;
