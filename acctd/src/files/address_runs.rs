//! The addresses of a row group, each with how many rows it has: the column is a dictionary, and numbers in it with run
//! lengths (Parquet's RLE/bit-packing hybrid, <https://parquet.apache.org/docs/file-format/data-pages/encodings/>). The
//! parquet crate gives a value for each row, and that takes as long as all that is done with it.

use std::net::IpAddr;
use std::str;

use anyhow::{Context as _, Result, bail, ensure};
use parquet::column::page::{Page, PageReader};

pub(super) struct AddressRuns {
    pages: Box<dyn PageReader>,
    dictionary: Vec<IpAddr>,
    numbers: Numbers,
    /// A run that was read to see where the one before it ends.
    next: Option<(IpAddr, usize)>,
}

impl AddressRuns {
    pub(super) fn new(pages: Box<dyn PageReader>) -> Self {
        Self {
            pages,
            dictionary: Vec::new(),
            numbers: Numbers::default(),
            next: None,
        }
    }

    /// The next address, and how many rows it has.
    pub(super) fn next(&mut self) -> Result<Option<(IpAddr, usize)>> {
        let Some((address, mut n)) = self
            .next
            .take()
            .map_or_else(|| self.part(), |it| Ok(Some(it)))?
        else {
            return Ok(None);
        };
        while let Some((following, more)) = self.part()? {
            if following != address {
                self.next = Some((following, more));
                break;
            }
            n += more;
        }
        Ok(Some((address, n)))
    }

    /// A run, or a part of one.
    fn part(&mut self) -> Result<Option<(IpAddr, usize)>> {
        loop {
            if let Some((number, n)) = self.numbers.next()? {
                let address = usize::try_from(number).ok();
                let address = address.and_then(|number| self.dictionary.get(number));
                return Ok(Some((*address.context(DAMAGED)?, n)));
            }
            match self.pages.get_next_page()? {
                None => return Ok(None),
                Some(Page::DictionaryPage {
                    buf, num_values, ..
                }) => {
                    self.dictionary = dictionary(&buf, num_values)?;
                }
                // The column has no levels: each row has an address.
                Some(Page::DataPage {
                    buf, num_values, ..
                }) => {
                    self.numbers = Numbers::new(buf.into(), num_values)?;
                }
                Some(Page::DataPageV2 { .. }) => bail!("its pages are of another version"),
            }
        }
    }
}

const DAMAGED: &str = "it is damaged: its addresses cannot be read";

/// Each address as text, after its length in four bytes.
fn dictionary(mut rest: &[u8], n: u32) -> Result<Vec<IpAddr>> {
    let address = |_| {
        let (length, after) = rest.split_first_chunk().context(DAMAGED)?;
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let (text, after) = after.split_at_checked(length).context(DAMAGED)?;
        rest = after;
        str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .context(DAMAGED)
    };
    (0..n).map(address).collect()
}

/// The numbers of a page.
#[derive(Default)]
struct Numbers {
    page: Vec<u8>,
    at: usize,
    /// Bits of a number.
    width: usize,
    n_left: usize,
    /// Numbers that are packed, each of `width` bits: where they begin, which is next, and how many there are.
    packed: (usize, usize, usize),
}

impl Numbers {
    fn new(page: Vec<u8>, n: u32) -> Result<Self> {
        let width = usize::from(*page.first().context(DAMAGED)?);
        ensure!(width <= 32, DAMAGED);
        Ok(Self {
            page,
            at: 1,
            width,
            n_left: usize::try_from(n)?,
            packed: (0, 0, 0),
        })
    }

    /// A number, and how many times it is there.
    fn next(&mut self) -> Result<Option<(u32, usize)>> {
        if self.n_left == 0 {
            return Ok(None);
        }
        let (start, next, n_packed) = self.packed;
        if next < n_packed {
            self.packed.1 += 1;
            self.n_left -= 1;
            return Ok(Some((self.unpack(start, next)?, 1)));
        }
        let header = self.varint()?;
        let n = usize::try_from(header >> 1)?;
        if header & 1 == 1 {
            // Of eight numbers each, of which the last may be more than there are.
            self.packed = (self.at, 0, n.checked_mul(8).context(DAMAGED)?);
            self.at += n * self.width;
            ensure!(n > 0, DAMAGED);
            return self.next();
        }
        let n_bytes = self.width.div_ceil(8);
        let bytes = self.page.get(self.at..self.at + n_bytes).context(DAMAGED)?;
        self.at += n_bytes;
        ensure!(n > 0 && n <= self.n_left, DAMAGED);
        self.n_left -= n;
        Ok(Some((little_endian(bytes, 0, 32), n)))
    }

    fn unpack(&self, start: usize, number: usize) -> Result<u32> {
        let bit = number * self.width;
        let first = start + bit / 8;
        let end = start + (bit + self.width).div_ceil(8);
        let bytes = self.page.get(first..end).context(DAMAGED)?;
        Ok(little_endian(bytes, bit % 8, self.width))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = *self.page.get(self.at).context(DAMAGED)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!(DAMAGED)
    }
}

/// `width` bits after `skipped` ones, of at most five bytes.
fn little_endian(bytes: &[u8], skipped: usize, width: usize) -> u32 {
    let shifted = bytes
        .iter()
        .rev()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        >> skipped;
    #[expect(clippy::cast_possible_truncation, reason = "at most 32 bits are left")]
    let number = (shifted & ((1_u64 << width) - 1)) as u32;
    number
}
