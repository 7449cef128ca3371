//! Checks the eBPF object, acctd's own or the user's, against the map contract, and loads it.

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::io::Read as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use acctd_common::contract::{
    self, AddressKey, CLOCK_ENTRIES, EpochKey, EpochValue, SLOTS, VlanKey,
};
use anyhow::{Context, Result, anyhow, bail};
use aya::programs::{Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use log::debug;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use rustix::thread::CapabilitySet;

use super::epoch_map::EpochDefinition;
use crate::config::crosscheck::{CrossCheckConfig, Watched};
use crate::model::prefix::Family;
use crate::process::kernel::{kernel_version, memlock_limit};
use crate::process::user::is_in_first_user_namespace;

/// It checks the IPv6 option IOAM; older ones skip it, as any that they do not know.
const KNOWS_IOAM: (u32, u32) = (5, 15);

/// It accepts a map with another number of entries in an array of maps.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Built by `cargo xtask build-ebpf`, which also writes the stamp that a test checks.
static BUILT_IN: &[u8] = include_bytes_aligned!("../../../acctd-ebpf/objects/acctd.o");

/// Sets the object's globals and loads the programs that `config` needs, without attaching them. With them come the
/// maps that epochs need.
pub(crate) fn load(config: &CrossCheckConfig) -> Result<(Ebpf, EpochDefinition)> {
    let mut needed: Vec<&str> = Vec::new();
    for (_, program) in config.watched.iter().flat_map(Watched::programs) {
        if !needed.contains(&program) {
            needed.push(program);
        }
    }
    let (bytes, name) = match &config.object {
        None => (Cow::Borrowed(BUILT_IN), "acctd's own object".to_owned()),
        Some(path) => (Cow::Owned(read(path)?), path.display().to_string()),
    };
    check(&bytes, &needed).with_context(|| format!("{name} does not follow the map contract"))?;
    let has_segments = has_global(&bytes, contract::WIRE)?;
    if config.wire && !has_segments {
        bail!(
            "--crosscheck-wire: {name} has no global {}, so it does not count segments",
            contract::WIRE
        );
    }
    let load = || {
        let globals = Globals::new(config);
        let mut loader = globals.loader(config.object.is_none());
        loader
            .load(&bytes)
            .map_err(|error| load_error(&name, &error.into()))
    };
    let mut ebpf = without_panic(load)?;
    for program in needed {
        classifier(&mut ebpf, program)?
            .load()
            .map_err(|error| load_error(&format!("{name}, program {program}"), &error.into()))?;
    }
    let definition =
        without_panic(|| EpochDefinition::of(aya_obj::Object::parse(&bytes)?, has_segments))
            .with_context(|| format!("the maps of {name}"))?;
    Ok((ebpf, definition))
}

/// The program `name`, which [`load`] must have loaded.
pub(crate) fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        Some(_) => bail!("its program {name} is not of the type classifier"),
        None => bail!("it has no program {name}"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read --crosscheck-object {}", path.display()))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!(
            "--crosscheck-object {} is no eBPF object: it has more than {} MB",
            path.display(),
            MAX_BYTES / 1_000_000
        );
    }
    Ok(bytes)
}

/// Limit for the file and for the sizes that its sections claim. acctd's own object has 0.1 MB. Without a
/// limit, an endless file or a section of a petabyte would use up all memory.
const MAX_BYTES: u64 = 16_000_000;

fn has_global(bytes: &[u8], name: &str) -> Result<bool> {
    let file = object::File::parse(bytes)?;
    let found = file.symbols().any(|symbol| symbol.name() == Ok(name));
    Ok(found)
}

fn check_sizes(bytes: &[u8]) -> Result<()> {
    let file = object::File::parse(bytes)?;
    let sizes = file.sections().map(|section| section.size());
    if sizes.fold(0, u64::saturating_add) > MAX_BYTES {
        bail!("its sections have more than {} MB", MAX_BYTES / 1_000_000);
    }
    Ok(())
}

/// Turns a panic of `work` into an error, without the panic's own message: aya-obj panics on many damaged
/// objects. The fuzz target needs the hook too, because libFuzzer's hook ends the process on any panic.
pub fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    thread_local! {
        static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                others(info);
            }
        }));
    });
    let was_caught = IS_CAUGHT.replace(true);
    // After a panic `work` returns nothing, so nobody sees a half-finished value.
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(was_caught);
    done.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        bail!(
            "the file is damaged: the library that reads it stopped with \"{}\"",
            text.unwrap_or("no reason given")
        )
    })
}

/// The contract's globals, as written into the object.
struct Globals {
    ip4_prefix_length: u8,
    ip6_prefix_length: u8,
    accounted: u8,
    debug: u8,
    wire: u8,
    ioam: u8,
}

impl Globals {
    fn new(config: &CrossCheckConfig) -> Self {
        let bits = |family, full| {
            let mut lengths = config.prefix_lengths.iter();
            lengths
                .find(|length| length.family() == family)
                .map_or(full, |length| length.bits())
        };
        Self {
            ip4_prefix_length: bits(Family::Ip4, 32),
            ip6_prefix_length: bits(Family::Ip6, 128),
            accounted: config.accounted,
            debug: u8::from(config.debug),
            wire: u8::from(config.wire),
            ioam: u8::from(kernel_version() >= KNOWS_IOAM),
        }
    }

    /// A user's program need not have them.
    fn loader(&self, must_exist: bool) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        for (name, value) in [
            (contract::IP4_PREFIX_LENGTH, &self.ip4_prefix_length),
            (contract::IP6_PREFIX_LENGTH, &self.ip6_prefix_length),
            (contract::ACCOUNTED, &self.accounted),
            (contract::DEBUG, &self.debug),
            (contract::WIRE, &self.wire),
            (contract::IOAM, &self.ioam),
        ] {
            loader.override_global(name, value, must_exist);
        }
        loader
    }
}

/// The kernel's error, with its usual cause and cure: an errno alone names neither the missing capability nor
/// the old kernel.
fn load_error(name: &str, error: &anyhow::Error) -> anyhow::Error {
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    let missing = missing_capabilities();
    let (major, minor) = kernel_version();
    let hint = match errno {
        Some(libc::EPERM | libc::EACCES) if !missing.is_empty() => format!(
            ": requires {}; run acctd as root, or without --crosscheck",
            missing.join(" and ")
        ),
        Some(libc::EPERM)
            if let Some(limit) = memlock_limit()
                && is_in_first_user_namespace() =>
        {
            format!(": {limit}")
        }
        // Capabilities of a user namespace do not count for bpf(2).
        Some(libc::EPERM) => {
            ": requires CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN in the first user namespace; run acctd there as root, or without --crosscheck"
                .to_owned()
        }
        Some(libc::EINVAL | libc::ENOSYS) if (major, minor) < OLDEST_KERNEL => format!(
            ": requires Linux 5.10, and this is Linux {major}.{minor}; run acctd without --crosscheck"
        ),
        Some(libc::ENOSYS) => {
            ": this kernel is built without CONFIG_BPF_SYSCALL; run acctd without --crosscheck"
                .to_owned()
        }
        _ => String::new(),
    };
    anyhow!("the kernel rejects {name}: {}{hint}", error_text(error))
}

/// Of the verifier's log, which may have hundreds of lines, only the reason: it tells the author of a program
/// what to change. `-debug` logs all of it.
fn error_text(error: &anyhow::Error) -> String {
    let loading = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ProgramError>());
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = loading
    {
        let log = verifier_log.to_string();
        debug!("verifier log: {log}");
        return match verifier_reason(&log) {
            Some(reason) => format!("{reason} ({io_error})"),
            None => io_error.to_string(),
        };
    }
    // Some errors contain the text of their cause, others do not.
    let text = error.to_string();
    let cause = error.root_cause().to_string();
    if text.contains(&cause) {
        text
    } else {
        format!("{text}: {cause}")
    }
}

fn verifier_reason(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 5] = [
        "processed ",
        // Linux 7.2.
        "insns processed ",
        "verification time ",
        "stack depth ",
        "mark_read",
    ];
    log.lines().rev().map(str::trim).find(|line| {
        !line.is_empty()
            && !STATISTICS
                .iter()
                .any(|statistic| line.starts_with(statistic))
    })
}

/// The capabilities that bpf(2) requires and this thread lacks.
fn missing_capabilities() -> Vec<&'static str> {
    let Ok(sets) = rustix::thread::capabilities(None) else {
        return Vec::new();
    };
    let has = |capability| sets.effective.contains(capability);
    // Before Linux 5.8 there was only CAP_SYS_ADMIN, and it still suffices.
    let is_admin = has(CapabilitySet::SYS_ADMIN);
    [
        ("CAP_BPF", is_admin || has(CapabilitySet::BPF)),
        ("CAP_PERFMON", is_admin || has(CapabilitySet::PERFMON)),
        ("CAP_NET_ADMIN", has(CapabilitySet::NET_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| (!is_there).then_some(name))
    .collect()
}

/// Compares the object with `acctd_common::contract`, before the kernel sees it. The error names what differs.
pub fn check(bytes: &[u8], needed: &[&str]) -> Result<()> {
    check_sizes(bytes).context("it is no eBPF object")?;
    let parse = || Ok(aya_obj::Object::parse(bytes)?);
    let object = without_panic(parse).context("it is no eBPF object")?;
    for name in needed {
        if !object.programs.contains_key(*name) {
            let mut others: Vec<&str> = object.programs.keys().map(String::as_str).collect();
            others.sort_unstable();
            bail!("it has no program {name}, only {}", others.join(", "));
        }
    }
    let map = |name: &str| {
        object
            .maps
            .get(name)
            .with_context(|| format!("it has no map {name}"))
    };
    let epochs = map(contract::EPOCHS)?;
    Shape::of(epochs).require(
        contract::EPOCHS,
        &Shape::new(kind::ARRAY_OF_MAPS, 4, 4, SLOTS),
    )?;
    let inner = epochs.inner().with_context(|| {
        format!(
            "map {} has no definition of its inner map",
            contract::EPOCHS
        )
    })?;
    let name = format!("the inner map of {}", contract::EPOCHS);
    let wanted = Shape::new(
        kind::HASH,
        size_of::<EpochKey>(),
        size_of::<EpochValue>(),
        // The kernel accepts maps of any size there.
        inner.max_entries(),
    );
    Shape::of(&inner).require(&name, &wanted)?;
    if inner.map_flags() != BPF_F_NO_PREALLOC {
        bail!("{name} must have the flag BPF_F_NO_PREALLOC and no other");
    }
    Shape::of(map(contract::CLOCK)?).require(
        contract::CLOCK,
        &Shape::new(kind::ARRAY, 4, 8, CLOCK_ENTRIES),
    )?;
    if let Some(vlans) = object.maps.get(contract::VLANS) {
        Shape::of(vlans).require(
            contract::VLANS,
            &Shape::new(kind::HASH, size_of::<VlanKey>(), 4, vlans.max_entries()),
        )?;
    }
    if let Some(addresses) = object.maps.get(contract::ADDRESSES) {
        let entries = addresses.max_entries();
        Shape::of(addresses).require(
            contract::ADDRESSES,
            &Shape::new(kind::HASH, size_of::<AddressKey>(), 4, entries),
        )?;
    }
    Ok(())
}

/// `linux/bpf.h`.
const BPF_F_NO_PREALLOC: u32 = 1;

/// `enum bpf_map_type` of `linux/bpf.h`.
mod kind {
    pub(super) const HASH: u32 = 1;
    pub(super) const ARRAY: u32 = 2;
    pub(super) const ARRAY_OF_MAPS: u32 = 12;
}

/// The properties of a map that the contract fixes.
struct Shape {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

impl Shape {
    fn new(kind: u32, key_bytes: usize, value_bytes: usize, entries: u32) -> Self {
        // All types are small.
        let small = |size| u32::try_from(size).unwrap_or(u32::MAX);
        Self {
            kind,
            key_bytes: small(key_bytes),
            value_bytes: small(value_bytes),
            entries,
        }
    }

    fn of(map: &aya_obj::Map) -> Self {
        Self {
            kind: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            entries: map.max_entries(),
        }
    }

    fn require(&self, name: &str, wanted: &Self) -> Result<()> {
        let differences: Vec<String> = [
            ("type", self.kind, wanted.kind),
            ("bytes of a key", self.key_bytes, wanted.key_bytes),
            ("bytes of a value", self.value_bytes, wanted.value_bytes),
            ("entries", self.entries, wanted.entries),
        ]
        .into_iter()
        .filter(|(_, is, must)| is != must)
        .map(|(what, is, must)| format!("{what}: {is} instead of {must}"))
        .collect();
        if differences.is_empty() {
            return Ok(());
        }
        bail!(
            "{name} differs in {}; see acctd_common::contract",
            differences.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_the_last_line_before_its_statistics() {
        let log = "0: R1=ctx() R10=fp0\n;  @ main.rs:28\nR0 !read_ok\nverification time 9 usec\n\
                   stack depth 0\nprocessed 2 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(verifier_reason(log), Some("R0 !read_ok"));
        let of_7_2 = log.replace("depth 0\n", "depth 0 max 0\ninsns processed 2\n");
        assert_eq!(verifier_reason(&of_7_2), Some("R0 !read_ok"));
        assert_eq!(verifier_reason(""), None);
    }

    #[test]
    fn a_damaged_object_is_an_error_and_no_panic() {
        let whole = include_bytes!("../../../acctd-ebpf/objects/minimal.o");
        let needed = [contract::INGRESS_SOURCE, contract::EGRESS_DEST];
        check(whole, &needed).unwrap();
        let mut n_panics = 0;
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.to_vec();
            damaged[at] = 0xff;
            if let Err(refused) = check(&damaged, &needed) {
                n_panics +=
                    usize::from(format!("{refused:#}").contains("the library that reads it"));
            }
        }
        // The library panics if such a byte is a length.
        assert!(n_panics > 0);
        let huge = include_bytes!("../../fuzz/corpus/object/section_of_four_gigabytes");
        let refused = format!("{:#}", check(huge, &needed).unwrap_err());
        assert!(refused.contains("more than 16 MB"), "{refused}");
    }
}
