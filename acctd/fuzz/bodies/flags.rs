//! Command lines: whatever the arguments are, they are taken or refused with a message, and what is
//! taken is within its bounds and is taken again when it is written out.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use acctd::cli::commands::Cli;
use acctd::cli::flags::{Flags, GroupFlags, GroupList};
use acctd::cli::go_flags;
use acctd::config::Config;
use acctd::config::crosscheck::AttachMode;
use acctd::model::interval::Interval;

pub(crate) fn take(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        // Most of what follows would not get so far.
        let _taken_or_refused = (go_flags::parse_duration(text), go_flags::parse_bool(text));
    }
    let program = OsString::from("acctd");
    let args = data
        .split(|byte| *byte == 0)
        .map(|arg| OsStr::from_bytes(arg).to_owned());
    let args: Vec<OsString> = std::iter::once(program).chain(args).collect();
    match Cli::parse_args(args) {
        Ok(Cli {
            flags,
            command: None,
        }) => check(flags),
        // A command's flags are the same ones, or few.
        Ok(_) => {}
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

fn check(flags: Flags) {
    assert_eq!(Interval::new(flags.interval.length()), Ok(flags.interval));
    assert!(flags.ip4_prefix_length <= 32 && flags.ip6_prefix_length <= 128);
    assert!(flags.max_prefixes >= 1 && flags.backlog >= 1);
    assert!(flags.checkpoint.is_zero() || flags.checkpoint.as_millis() >= 100);
    assert!((1..=100_000_000).contains(&flags.crosscheck_max_prefixes));
    assert!((-20..=19).contains(&flags.priority));
    for list in groups(&flags) {
        assert!(list.0.len() <= 64 && list.0.iter().all(|group| group.0 > 0));
    }
    for watched in &flags.crosscheck {
        assert!((1..16).contains(&watched.interface.len()));
    }
    let written = written(&flags);
    let again = Cli::parse_args(written.clone());
    assert!(
        again
            .as_ref()
            .is_ok_and(|again| format!("{:?}", again.flags) == format!("{flags:?}")),
        "{flags:?}\nis written {written:?} and read as\n{again:?}"
    );
    match Config::resolve(flags) {
        Ok(config) => {
            let mut groups: Vec<u16> = config.groups.iter().map(|group| group.group.0).collect();
            assert!((1..=groups.len() + 1).contains(&config.n_threads));
            groups.sort_unstable();
            assert!(
                groups.windows(2).all(|pair| pair[0] < pair[1]),
                "a group is read twice"
            );
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

fn groups(flags: &Flags) -> [&GroupList; 4] {
    [
        &flags.groups.ip4_src_group,
        &flags.groups.ip4_dst_group,
        &flags.groups.ip6_src_group,
        &flags.groups.ip6_dst_group,
    ]
}

fn written(flags: &Flags) -> Vec<OsString> {
    // Taken apart, so that a new flag cannot be forgotten.
    let Flags {
        groups:
            GroupFlags {
                ip4_src_group,
                ip4_dst_group,
                ip6_src_group,
                ip6_dst_group,
            },
        ip4_prefix_length,
        ip6_prefix_length,
        max_prefixes,
        interval,
        log_directory,
        utc,
        checkpoint,
        backlog,
        crosscheck,
        crosscheck_attach,
        crosscheck_max_prefixes,
        crosscheck_object,
        crosscheck_pin,
        crosscheck_wire,
        explain,
        syslog,
        verbose,
        debug,
        cpus,
        priority,
        user,
        cpuprofile,
        listen,
    } = flags;
    let attach = match crosscheck_attach {
        AttachMode::Auto => "auto",
        AttachMode::Tcx => "tcx",
        AttachMode::Clsact => "clsact",
    };
    let mut args: Vec<OsString> = [
        "acctd".to_owned(),
        format!("-ip4-src-group={}", list(ip4_src_group)),
        format!("-ip4-dst-group={}", list(ip4_dst_group)),
        format!("-ip6-src-group={}", list(ip6_src_group)),
        format!("-ip6-dst-group={}", list(ip6_dst_group)),
        format!("-ip4-prefix-length={ip4_prefix_length}"),
        format!("-ip6-prefix-length={ip6_prefix_length}"),
        format!("-max-prefixes={max_prefixes}"),
        format!("-interval={}ns", interval.length().as_nanos()),
        format!("-utc={utc}"),
        format!("-checkpoint={}ns", checkpoint.as_nanos()),
        format!("-backlog={backlog}"),
        format!("-crosscheck-attach={attach}"),
        format!("-crosscheck-max-prefixes={crosscheck_max_prefixes}"),
        format!("-crosscheck-wire={crosscheck_wire}"),
        format!("-explain={explain}"),
        format!("-syslog={syslog}"),
        format!("-verbose={verbose}"),
        format!("-debug={debug}"),
        format!("-cpus={cpus}"),
        format!("-priority={priority}"),
    ]
    .map(OsString::from)
    .to_vec();
    let watched: Vec<String> = crosscheck.iter().map(ToString::to_string).collect();
    args.extend((!watched.is_empty()).then(|| format!("-crosscheck={}", watched.join(",")).into()));
    args.extend(user.as_ref().map(|user| format!("-user={user}").into()));
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    args.extend((!listen.is_empty()).then(|| format!("-listen={}", listen.join(",")).into()));
    for (flag, path) in [
        ("-log-directory=", Some(log_directory)),
        ("-crosscheck-object=", crosscheck_object.as_ref()),
        ("-crosscheck-pin=", crosscheck_pin.as_ref()),
        ("-cpuprofile=", cpuprofile.as_ref()),
    ] {
        args.extend(path.map(|path| {
            OsString::from_vec([flag.as_bytes(), path.as_os_str().as_bytes()].concat())
        }));
    }
    args
}

fn list(groups: &GroupList) -> String {
    let numbers: Vec<String> = groups.0.iter().map(|group| group.0.to_string()).collect();
    if numbers.is_empty() {
        "0".to_owned()
    } else {
        numbers.join(",")
    }
}
