//! The files of past intervals, read back: CSV files, the journal, and archives.

mod address_runs;
pub(crate) mod archive;
pub(crate) mod archive_rows;
pub(crate) mod calendar;
pub(crate) mod directory;
pub(crate) mod journal;
pub(crate) mod rows;
pub(crate) mod sorted;
