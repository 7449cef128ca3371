//! Whether an archive has what its files had: it is read back, to the last number.

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::files::archive::{Archive, digest_row};
use crate::files::archive_rows::{ArchiveRows, Wanted};

/// An error if a row is missing, was changed, or is one too many.
pub(super) fn verify(archive: &Archive) -> Result<()> {
    let mut found: Vec<(Sha256, u64)> = vec![(Sha256::new(), 0); archive.files.len()];
    let mut rows = ArchiveRows::open(archive, 0..archive.first_addresses.len(), Wanted::All)?;
    while rows.address().is_some() {
        rows.take(&mut |file, row| {
            let (digest, n_rows) = &mut found[file];
            digest_row(digest, row);
            *n_rows += 1;
            Ok(())
        })?;
    }
    for (file, (digest, n_rows)) in archive.files.iter().zip(found) {
        let digest: [u8; 32] = digest.finalize().into();
        ensure!(
            (n_rows, digest) == (file.rows, file.rows_sha256),
            "{}: what it has of {} is not what that file had ({n_rows} rows of {})",
            archive.path.display(),
            file.name,
            file.rows
        );
    }
    Ok(())
}

/// An error if this is not the file that was archived.
pub(super) fn is_the_archived(text: &[u8], digest: [u8; 32]) -> Result<()> {
    let found: [u8; 32] = Sha256::digest(text).into();
    (found == digest)
        .then_some(())
        .context("it is not the file that was archived under its name: it stays")
}
