//! Lets aya copy these types from and to maps, byte by byte.

use crate::contract::{AddressKey, EpochKey, EpochValue, VlanKey};
use crate::sample::{AskedKey, Sampling};

// SAFETY: repr(C), bytes alone, no padding (20 bytes, asserted in the contract), any bits are valid.
unsafe impl aya::Pod for EpochKey {}
// SAFETY: repr(C), eight u64 (64 bytes, asserted in the contract), any bits are valid.
unsafe impl aya::Pod for EpochValue {}
// SAFETY: repr(C), two u32, any bits are valid.
unsafe impl aya::Pod for VlanKey {}
// SAFETY: repr(C), a u32 and bytes, no padding (12 bytes, asserted in the contract), any bits are valid.
unsafe impl aya::Pod for AddressKey {}
// SAFETY: repr(C), bytes alone, no padding (20 bytes, asserted beside it), any bits are valid.
unsafe impl aya::Pod for AskedKey {}
// SAFETY: repr(C), u64 alone, any bits are valid.
unsafe impl aya::Pod for Sampling {}
