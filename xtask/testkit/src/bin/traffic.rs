//! The traffic generator alone, for testkit's own tests: `traffic traffic --dev …`.

use anyhow::Result;

fn main() -> Result<()> {
    testkit::traffic::main_from(std::env::args_os().skip(1))
}
