//! The place of the cross-check's TC programs. Nothing is built from it yet: acctd counts
//! from NFLOG alone until the cross-check arrives.

#![no_std]
