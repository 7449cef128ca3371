//! What is checked, made and given up before the first packet is counted.

pub mod preflight;
pub mod privilege;
