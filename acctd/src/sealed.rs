//! Small files of acctd's own, which are whole and of a version that it knows, or are recognised as
//! neither. What is read here may be torn by a power cut, or be anybody's.
//!
//! A line of text that says what it is and of which version, the value in the postcard format, and
//! the CRC-32 of both, least byte first.

use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A value that is kept in a file.
pub trait Sealed: Serialize + DeserializeOwned {
    /// The first line, its end included. It changes with the format of the value.
    const TITLE: &'static str;
}

/// Why a file is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// It begins with another line.
    #[error("it is of another program or version")]
    Foreign,
    /// Something is missing or changed.
    #[error("it is incomplete or changed: its checksum does not match")]
    Torn,
    /// The checksum matches, and yet it makes no sense.
    #[error("what it says cannot be")]
    Nonsense,
}

const CHECKSUM: usize = 4;

/// Writes a value, as [`read`] reads it.
pub fn write<T: Sealed>(value: &T, target: impl Write) -> io::Result<()> {
    let mut summing = Summing {
        target: io::BufWriter::with_capacity(64 * 1024, target),
        checksum: crc32fast::Hasher::new(),
    };
    summing.write_all(T::TITLE.as_bytes())?;
    postcard::to_io(value, &mut summing).map_err(io::Error::other)?;
    let Summing {
        mut target,
        checksum,
    } = summing;
    target.write_all(&checksum.finalize().to_le_bytes())?;
    target.flush()
}

/// Reads what [`write()`] has written. The caller makes sure that the value makes sense.
pub fn read<T: Sealed>(bytes: &[u8]) -> Result<T, Damage> {
    if !bytes.starts_with(T::TITLE.as_bytes()) {
        return Err(Damage::Foreign);
    }
    let (summed, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(Damage::Torn)?;
    if crc32fast::hash(summed) != u32::from_le_bytes(*checksum) {
        return Err(Damage::Torn);
    }
    let body = summed.get(T::TITLE.len()..).ok_or(Damage::Torn)?;
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(Damage::Nonsense),
    }
}

struct Summing<W> {
    target: W,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Summing<W> {
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
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
    struct Sample(Vec<u64>);

    impl Sealed for Sample {
        const TITLE: &'static str = "acctd sample 1\n";
    }

    fn sealed(value: &Sample) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let sample = Sample((0..1_000).map(|n| n << 40).collect());
        assert_eq!(read(&sealed(&sample)), Ok(sample));
    }

    #[test]
    fn each_missing_or_changed_byte_is_noticed() {
        let bytes = sealed(&Sample(vec![1, 2, 3]));
        for length in 0..bytes.len() {
            assert!(read::<Sample>(&bytes[..length]).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read::<Sample>(&changed).is_err(), "byte {at}");
        }
        assert_eq!(read::<Sample>(b"something else"), Err(Damage::Foreign));
        // A length that no file can have, under a checksum that matches.
        let mut huge = Sample::TITLE.as_bytes().to_vec();
        huge.extend([0xff; 9]);
        huge.extend(crc32fast::hash(&huge).to_le_bytes());
        assert_eq!(read::<Sample>(&huge), Err(Damage::Nonsense));
    }
}
