//! Closed intervals into files that survive a crash.

pub mod atomic_file;
pub mod checkpoint;
pub mod commit;
pub mod csv;
pub mod directory_lock;
pub mod journal;
pub mod journal_line;
pub mod log_directory;
pub mod merge;
pub mod recovery;
pub mod rows;
pub mod writer;
