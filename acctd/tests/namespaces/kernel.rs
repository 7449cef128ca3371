//! What the running kernel can do. It is found out by trying, once.

use std::sync::LazyLock;

use testkit::netns::{Namespace, Privilege};
use testkit::nft;

/// Whether nft's flowtables work (`CONFIG_NF_FLOW_TABLE`); if not, what the kernel says.
pub(crate) fn flowtables() -> Result<(), String> {
    static FOUND: LazyLock<Result<(), String>> = LazyLock::new(|| {
        accepts(
            "flowtable",
            "table inet t {
                flowtable f { hook ingress priority 0; devices = { lo }; }
                chain c { type filter hook forward priority 0; ip protocol tcp flow add @f; }; }",
        )
    });
    FOUND.clone()
}

/// Whether nft has the hook egress of the family netdev (Linux 5.16).
pub(crate) fn netdev_egress() -> Result<(), String> {
    static FOUND: LazyLock<Result<(), String>> = LazyLock::new(|| {
        accepts(
            "netdev hook egress",
            "table netdev t { chain c { type filter hook egress device lo priority 0; }; }",
        )
    });
    FOUND.clone()
}

/// Whether programs are attached by TCX (Linux 6.6).
pub(crate) fn tcx() -> Result<(), String> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|it| it.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 6) {
        Ok(())
    } else {
        Err("the kernel has no TCX".to_owned())
    }
}

fn accepts(what: &str, rules: &str) -> Result<(), String> {
    let namespace =
        Namespace::new(Privilege::of_this_process()).map_err(|error| error.to_string())?;
    // The reason is a line of a list: what nft quotes is in no order that stays.
    nft::load(&namespace, rules).map_err(|_| format!("the kernel has no {what}"))
}
