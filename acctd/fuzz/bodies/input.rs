//! Arbitrary bytes, taken as values from front to back. What is not there any more reads as zero.

/// What is left.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, as many as there are.
    pub(super) fn slice(&mut self, length: usize) -> &'a [u8] {
        let (slice, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        slice
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let slice = self.slice(N);
        std::array::from_fn(|at| slice.get(at).copied().unwrap_or(0))
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// A number of any size in two bytes: small ones, powers of two and their neighbours, and the
    /// largest.
    pub(super) fn number(&mut self) -> u64 {
        let [magnitude, shift] = self.array();
        match shift {
            0..64 => u64::from(magnitude) << shift,
            64..128 => (1_u64 << (shift - 64)).wrapping_sub(magnitude.into()),
            _ => u64::MAX - u64::from(magnitude),
        }
    }
}
