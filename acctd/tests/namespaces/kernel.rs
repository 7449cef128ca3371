//! What the running kernel can do, found out by trying, and how much the processor may be asked to.

use std::ops::Div;
use std::sync::LazyLock;

use acctd::process::kernel::kernel_version;
use testkit::netns::{Namespace, Privilege, find_program};
use testkit::nft;

/// A number of packets, of prefixes, or of packets a second. Where an emulated processor runs the tests
/// (`cargo xtask test --kernels`), it is a tenth: what the kernel does with each packet is the same.
pub(crate) fn scaled<N: Div<Output = N> + From<u8>>(number: N) -> N {
    if is_emulated() {
        number / N::from(10)
    } else {
        number
    }
}

pub(crate) fn is_emulated() -> bool {
    static IS_EMULATED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("ACCTD_TESTS_EMULATED").is_some());
    *IS_EMULATED
}

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

/// Whether programs are attached by TCX.
pub(crate) fn tcx() -> Result<(), String> {
    if kernel_version() >= (6, 6) {
        Ok(())
    } else {
        Err("the kernel has no TCX".to_owned())
    }
}

/// The values of `--crosscheck-attach` that the kernel has.
pub(crate) fn attach_modes() -> &'static [&'static str] {
    if tcx().is_ok() {
        &["tcx", "clsact"]
    } else {
        &["clsact"]
    }
}

/// The first Linux that does not count eBPF maps against `RLIMIT_MEMLOCK`.
pub(crate) const WITHOUT_MEMLOCK: (u32, u32) = (5, 11);

pub(crate) fn is_before(limit: (u32, u32)) -> Result<(), String> {
    if kernel_version() < limit {
        Ok(())
    } else {
        Err(format!("it is about Linux before {}.{}", limit.0, limit.1))
    }
}

pub(crate) fn is_since(first: (u32, u32)) -> Result<(), String> {
    if kernel_version() >= first {
        Ok(())
    } else {
        Err(format!("it needs Linux {}.{}", first.0, first.1))
    }
}

/// Whether there is more than one.
pub(crate) fn processors() -> Result<(), String> {
    match std::thread::available_parallelism() {
        Ok(number) if number.get() > 1 => Ok(()),
        _ => Err("there is one processor".to_owned()),
    }
}

/// Whether there are devices of this kind, and the program that configures them.
pub(crate) fn device(kind: &str) -> Result<(), String> {
    let namespace = Namespace::new(Privilege::Root).map_err(|error| error.to_string())?;
    if kind == "wireguard" && find_program("wg").is_none() {
        return Err("there is no wg".to_owned());
    }
    let more: &[&str] = match kind {
        "vlan" => &["id", "5"],
        "vrf" => &["table", "10"],
        _ => &[],
    };
    // A VLAN is on another device, and lo takes none.
    let other = namespace.run(&["ip", "link", "add", "v0", "type", "veth"]);
    other.map_err(|error| error.to_string())?;
    let words = [
        "ip", "link", "add", "link", "v0", "name", "t0", "type", kind,
    ];
    let words = [&words[..], more].concat();
    let added = namespace.run(&words);
    added
        .map(drop)
        .map_err(|_refused| format!("the kernel has no devices of the kind {kind}"))
}

fn accepts(what: &str, rules: &str) -> Result<(), String> {
    let namespace =
        Namespace::new(Privilege::of_this_process()).map_err(|error| error.to_string())?;
    // The reason is a line of a list: what nft quotes is in no order that stays.
    nft::load(&namespace, rules).map_err(|_refused| format!("the kernel has no {what}"))
}
