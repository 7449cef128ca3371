//! The format of checkpoints, commit records and the note of a restart. A reader recognises a file that is
//! damaged, of another version or of another program.
//!
//! A file is a line of text with the kind and the version, the value in postcard's format, and the CRC-32 of both,
//! little-endian.

use std::fs::File;
use std::io::{self, Read as _, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A value that can be written to such a file.
pub trait Checksummed: Serialize + DeserializeOwned {
    /// The first line, with its line feed. A new format of the value needs a new title.
    const TITLE: &'static str;
    /// A longer file is not read.
    const MAX_BYTES: u64;
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// The first line is another one.
    #[error("it is of another program or version")]
    Foreign,
    /// It has more than [`Checksummed::MAX_BYTES`].
    #[error("it is too long")]
    TooLong,
    /// The checksum does not match.
    #[error("it is incomplete or changed: its checksum does not match")]
    Torn,
    /// The checksum matches, but the contents are not a valid value.
    #[error("its contents are invalid")]
    Invalid,
}

const CHECKSUM_BYTES: usize = 4;

/// Writes a value for [`read`] and [`read_file`].
pub fn write<T: Checksummed>(value: &T, target: impl Write) -> io::Result<()> {
    let mut writer = ChecksumWriter {
        target: io::BufWriter::with_capacity(64 * 1024, target),
        checksum: crc32fast::Hasher::new(),
    };
    writer.write_all(T::TITLE.as_bytes())?;
    postcard::to_io(value, &mut writer).map_err(io::Error::other)?;
    let ChecksumWriter {
        mut target,
        checksum,
    } = writer;
    target.write_all(&checksum.finalize().to_le_bytes())?;
    target.flush()
}

/// Reads what [`write()`] has written, from the file's current position. If the title is another one, reads no
/// further. Never reads more than [`Checksummed::MAX_BYTES`] and the title.
pub fn read_file<T: Checksummed>(file: &File) -> io::Result<Result<T, Damage>> {
    let mut bytes = Vec::new();
    let title = T::TITLE.len() as u64;
    file.take(title).read_to_end(&mut bytes)?;
    if bytes == T::TITLE.as_bytes() {
        if file.metadata()?.len() > T::MAX_BYTES {
            return Ok(Err(Damage::TooLong));
        }
        // Limited, because the file may grow meanwhile.
        file.take(T::MAX_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(read(&bytes))
}

/// Reads what [`write()`] has written. The caller checks the values of fields.
pub fn read<T: Checksummed>(bytes: &[u8]) -> Result<T, Damage> {
    if !bytes.starts_with(T::TITLE.as_bytes()) {
        return Err(Damage::Foreign);
    }
    let (summed, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(Damage::Torn)?;
    if crc32fast::hash(summed) != u32::from_le_bytes(*checksum) {
        return Err(Damage::Torn);
    }
    let body = summed.get(T::TITLE.len()..).ok_or(Damage::Torn)?;
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(Damage::Invalid),
    }
}

struct ChecksumWriter<W> {
    target: W,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.target.write(bytes)?;
        self.checksum.update(&bytes[..n_written]);
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::fmt::Debug;

    use super::*;

    /// Compares a value with a file that an earlier version has written: the file is read as this value, and
    /// the value is written as the same bytes. `UPDATE=1` writes the file. Use that for a new title only.
    pub(crate) fn ensure_format<T: Checksummed + Debug>(name: &str, value: &T) {
        let path = format!("{}/tests/formats/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut written = Vec::new();
        write(value, &mut written).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        let saved = std::fs::read(path).unwrap();
        let read: T = read(&saved).unwrap();
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
        assert!(
            saved == written,
            "the format of {name} has changed: it needs a new title"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
    struct Sample(Vec<u64>);

    impl Checksummed for Sample {
        const TITLE: &'static str = "acctd sample 1\n";
        const MAX_BYTES: u64 = 64;
    }

    fn checksummed(value: &Sample) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let sample = Sample((0..1_000).map(|n| n << 40).collect());
        assert_eq!(read(&checksummed(&sample)), Ok(sample));
    }

    #[test]
    fn no_more_of_a_file_is_read_than_the_limit() {
        let file = |bytes: &[u8], length: u64| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file.set_len(length).unwrap();
            file.rewind().unwrap();
            file
        };
        let sample = Sample(vec![1; 44]);
        let bytes = checksummed(&sample);
        assert_eq!(bytes.len(), 64);
        assert_eq!(read_file(&file(&bytes, 64)).unwrap(), Ok(sample));
        let read = |file| read_file::<Sample>(&file).unwrap().unwrap_err();
        // A terabyte, which would not fit into memory.
        let huge = 1 << 40;
        assert_eq!(read(file(&bytes, huge)), Damage::TooLong);
        assert_eq!(read(file(&bytes, 65)), Damage::TooLong);
        assert_eq!(read(file(b"something else", huge)), Damage::Foreign);
        assert_eq!(read(file(&bytes, 63)), Damage::Torn);
        assert_eq!(read(file(b"", 0)), Damage::Foreign);
    }

    #[test]
    fn each_missing_or_changed_byte_is_an_error() {
        let bytes = checksummed(&Sample(vec![1, 2, 3]));
        for length in 0..bytes.len() {
            assert!(read::<Sample>(&bytes[..length]).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read::<Sample>(&changed).is_err(), "byte {at}");
        }
        assert_eq!(read::<Sample>(b"something else"), Err(Damage::Foreign));
        // An impossible length, with a checksum that matches.
        let mut huge = Sample::TITLE.as_bytes().to_vec();
        huge.extend([0xff; 9]);
        huge.extend(crc32fast::hash(&huge).to_le_bytes());
        assert_eq!(read::<Sample>(&huge), Err(Damage::Invalid));
    }
}
