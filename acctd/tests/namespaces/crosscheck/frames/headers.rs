//! IP headers, as the kernel takes and refuses them.

use std::net::{Ipv4Addr, Ipv6Addr};

use acctd::process::kernel::kernel_version;
use anyhow::Result;
use testkit::craft::{Extension, Payload};

use super::Fate::{Counted, Uncounted, WithoutLength};
use super::Kinds;
use crate::rig::Rig;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_ip4_headers_as_the_kernel_takes_them",
        ip4_headers,
    ),
    (
        Needs::Root,
        "crosscheck_ip6_headers_as_the_kernel_takes_them",
        ip6_headers,
    ),
    (
        Needs::Root,
        "crosscheck_hop_by_hop_options_as_the_kernel_takes_them",
        hop_by_hop_options,
    ),
    (
        Needs::Root,
        "crosscheck_hop_by_hop_options_that_the_kernel_refuses",
        hop_by_hop_options_refused,
    ),
];

fn ip4_headers() -> Result<()> {
    let rig = Rig::new()?;
    let mut kinds = Kinds::to(rig.veth.near_mac);
    kinds.ip4("plain", Counted, |_| ());
    kinds.ip4("no-operations", Counted, |p| p.options = vec![1; 4]);
    kinds.ip4("router alert", Counted, |p| p.options = vec![0x94, 4, 0, 0]);
    kinds.ip4("a full header", Counted, |p| p.options = vec![1; 40]);
    kinds.ip4("options that are none", Counted, |p| {
        p.options = vec![0x44, 77, 0, 0];
    });
    kinds.ip4("hops used up", Counted, |p| p.ttl = 0);
    kinds.ip4("no address", Counted, |p| p.source = Ipv4Addr::UNSPECIFIED);
    kinds.ip4("loopback", Counted, |p| p.source = Ipv4Addr::LOCALHOST);
    kinds.ip4("a group's", Counted, |p| {
        p.source = Ipv4Addr::new(224, 0, 0, 9);
    });
    kinds.ip4("shorter than the frame", Counted, |p| {
        p.total_length = Some(21);
    });
    kinds.ip4("a header alone", Counted, |p| p.total_length = Some(20));
    kinds
        .ip4("padding", Counted, |p| p.payload = Payload::Udp(Vec::new()))
        .edit_frame(|frame| frame.padded(18));
    for version in [0, 3, 5, 6, 15] {
        kinds.ip4("version", Uncounted("bad_header"), |p| p.version = version);
    }
    for ihl in [0, 1, 4] {
        kinds.ip4("header length", Uncounted("bad_header"), |p| {
            p.ihl = Some(ihl);
        });
    }
    for length in [0, 1, 19] {
        kinds.ip4("shorter than the header", Uncounted("bad_header"), |p| {
            p.total_length = Some(length);
        });
    }
    kinds.ip4("shorter than the options", Uncounted("bad_header"), |p| {
        p.options = vec![1; 8];
        p.total_length = Some(27);
    });
    kinds.ip4("checksum", Uncounted("bad_checksum"), |p| {
        p.wrong_checksum = true;
    });
    kinds.ip4("checksum with options", Uncounted("bad_checksum"), |p| {
        p.options = vec![1; 40];
        p.wrong_checksum = true;
    });
    kinds.ip4("checksum and length", Uncounted("bad_checksum"), |p| {
        p.total_length = Some(0);
        p.wrong_checksum = true;
    });
    kinds.ip4(
        "longer by one than the frame",
        Uncounted("truncated"),
        |p| {
            p.total_length = Some(20 + 8 + 30 + 1);
        },
    );
    kinds.ip4("as long as can be", Uncounted("truncated"), |p| {
        p.total_length = Some(0xffff);
    });
    for length in [14, 15, 33, 14 + 20 + 8 + 29] {
        kinds
            .ip4("cut", Uncounted("truncated"), |_| ())
            .edit_frame(|frame| frame.truncated(length));
    }
    kinds
        .ip4("cut within the options", Uncounted("truncated"), |p| {
            p.options = vec![1; 40];
        })
        .edit_frame(|frame| frame.truncated(14 + 20 + 39));
    kinds.check_on(&rig)
}

fn ip6_headers() -> Result<()> {
    let rig = Rig::new()?;
    let mut kinds = Kinds::to(rig.veth.near_mac);
    let alert = || Extension::HopByHop(vec![5, 2, 0, 0]);
    let routing = || Extension::Routing {
        kind: 2,
        segments_left: 0,
        data: vec![0; 20],
    };
    let options = || Extension::DestinationOptions(vec![0x1e, 3, 1, 2, 3]);
    kinds.ip6("plain", Counted, |_| ());
    kinds.ip6("router alert", Counted, |p| p.extensions = vec![alert()]);
    kinds.ip6("routing", Counted, |p| p.extensions = vec![routing()]);
    kinds.ip6("destination options", Counted, |p| {
        p.extensions = vec![options()];
    });
    kinds.ip6("many", Counted, |p| {
        p.extensions = vec![alert(), options(), routing(), options()];
    });
    kinds.ip6("out of order", Counted, |p| {
        p.extensions = vec![routing(), alert()];
    });
    kinds.ip6("nothing follows", Counted, |p| {
        p.payload = Payload::Raw {
            protocol: 59,
            bytes: Vec::new(),
        };
    });
    kinds.ip6("a protocol that is none", Counted, |p| {
        p.payload = Payload::Raw {
            protocol: 253,
            bytes: vec![9; 3],
        };
    });
    kinds.ip6("hops used up", Counted, |p| p.hop_limit = 0);
    kinds.ip6("no address", Counted, |p| p.source = Ipv6Addr::UNSPECIFIED);
    kinds.ip6("to no address", Counted, |p| p.dest = Ipv6Addr::UNSPECIFIED);
    kinds.ip6("shorter than the frame", Counted, |p| {
        p.payload_length = Some(1);
    });
    kinds
        .ip6("padding", Counted, |_| ())
        .edit_frame(|frame| frame.padded(5));
    for scope in [2, 3, 5, 8, 0xe, 0xf] {
        kinds.ip6("a group", Counted, |p| p.dest = group(scope));
    }
    kinds.ip6("no length", WithoutLength, |p| p.payload_length = Some(0));
    kinds.ip6("options and no length", WithoutLength, |p| {
        p.extensions = vec![alert()];
        p.payload_length = Some(0);
    });
    for version in [0, 4, 5, 7] {
        kinds.ip6("version", Uncounted("bad_header"), |p| p.version = version);
    }
    for scope in [0, 1] {
        kinds.ip6("a group of no scope", Uncounted("bad_header"), |p| {
            p.dest = group(scope);
        });
    }
    kinds.ip6("loopback", Uncounted("bad_header"), |p| {
        p.source = Ipv6Addr::LOCALHOST;
    });
    kinds.ip6("to loopback", Uncounted("bad_header"), |p| {
        p.dest = Ipv6Addr::LOCALHOST;
    });
    kinds.ip6("a group's", Uncounted("bad_header"), |p| {
        p.source = group(0xe);
    });
    kinds.ip6(
        "longer by one than the frame",
        Uncounted("truncated"),
        |p| {
            p.payload_length = Some(8 + 30 + 1);
        },
    );
    kinds.ip6("as long as can be", Uncounted("truncated"), |p| {
        p.payload_length = Some(0xffff);
    });
    for length in [14, 15, 53, 14 + 40 + 8 + 29] {
        kinds
            .ip6("cut", Uncounted("truncated"), |_| ())
            .edit_frame(|frame| frame.truncated(length));
    }
    kinds.check_on(&rig)
}

fn group(scope: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff00 | scope, 0, 0, 0, 0, 0, 0, 0x42)
}

fn hop_by_hop_options() -> Result<()> {
    let rig = Rig::new()?;
    let mut kinds = Kinds::to(rig.veth.near_mac);
    // Pad1, PadN, router alert, one that may be skipped, jumbo payload, IOAM.
    let eight_with_padding = [[0x1e, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(); 8].concat();
    let accepted: &[(&'static str, &[u8])] = &[
        ("nothing but Pad1", &[0; 6]),
        (
            "seven bytes of Pad1",
            &[0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0x1e, 1, 9, 1, 0],
        ),
        ("PadN", &[1, 4, 0, 0, 0, 0]),
        (
            "PadN of seven bytes",
            &[0x1e, 0, 1, 5, 0, 0, 0, 0, 0, 0x1e, 1, 9, 1, 0],
        ),
        ("router alert", &[5, 2, 0, 0]),
        ("one to be skipped", &[0x3e, 4, 1, 2, 3, 4]),
        (
            "eight",
            &[
                0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 1, 4, 0, 0,
                0, 0,
            ],
        ),
        (
            "IOAM in its place",
            &[0, 0, 0x31, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            "eight with all the padding that may be",
            &eight_with_padding[..70],
        ),
    ];
    for (name, options) in accepted {
        kinds.ip6(name, Counted, |p| {
            p.extensions = vec![Extension::HopByHop(options.to_vec())];
        });
    }
    kinds.check_on(&rig)
}

fn hop_by_hop_options_refused() -> Result<()> {
    let rig = Rig::new()?;
    let mut kinds = Kinds::to(rig.veth.near_mac);
    let seven_with_padding = [[0x1e, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(); 7].concat();
    let late = [&seven_with_padding[..], &[0xde, 0]].concat();
    let refused: &[(&'static str, &[u8])] = &[
        ("one for which to discard", &[0x5e, 4, 0, 0, 0, 0]),
        (
            "one for which to discard and complain",
            &[0x9e, 4, 0, 0, 0, 0],
        ),
        ("one for which to complain to one", &[0xde, 4, 0, 0, 0, 0]),
        ("PadN that is not zero", &[1, 4, 0, 0, 0, 1]),
        ("PadN that begins with no zero", &[1, 4, 1, 0, 0, 0]),
        (
            "eight bytes of Pad1",
            &[0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1e, 0, 1, 0],
        ),
        (
            "eight bytes of PadN",
            &[1, 6, 0, 0, 0, 0, 0, 0, 0x1e, 4, 0, 0, 0, 0],
        ),
        (
            "eight bytes of both",
            &[0, 0, 1, 4, 0, 0, 0, 0, 0x1e, 4, 0, 0, 0, 0],
        ),
        ("beyond the end", &[0x1e, 5, 0, 0, 0, 0]),
        ("no room for a length", &[1, 3, 0, 0, 0, 5]),
        ("router alert of three bytes", &[5, 3, 0, 0, 0, 0]),
        (
            "nine",
            &[
                0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 1,
                2, 0, 0,
            ],
        ),
        ("jumbo beside a length", &[0xc2, 4, 0, 1, 0, 0]),
        ("IOAM out of place", &[0x31, 4, 0, 0, 0, 0]),
        (
            "CALIPSO of nobody's",
            &[7, 8, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 1, 2, 0, 0],
        ),
        ("a bad one behind much padding", &late),
    ];
    for (name, options) in refused {
        // Before it knew IOAM, the kernel skipped it.
        let is_skipped = name.starts_with("IOAM") && kernel_version() < (5, 15);
        let fate = if is_skipped {
            Counted
        } else {
            Uncounted("bad_options")
        };
        kinds.ip6(name, fate, |p| {
            p.extensions = vec![Extension::HopByHop(options.to_vec())];
        });
    }
    let jumbos: &[(&'static str, [u8; 6])] = &[
        ("jumbo that is none", [0xc2, 4, 0, 0, 0xff, 0xff]),
        ("jumbo longer than the frame", [0xc2, 4, 0, 1, 0, 0]),
        (
            "jumbo longer than anything",
            [0xc2, 4, 0xff, 0xff, 0xff, 0xff],
        ),
    ];
    for (name, options) in jumbos {
        kinds.ip6(name, Uncounted("bad_options"), |p| {
            p.extensions = vec![Extension::HopByHop(options.to_vec())];
            p.payload_length = Some(0);
        });
    }
    // The frame has the bytes, the packet does not.
    kinds.ip6("longer than the packet", Uncounted("bad_options"), |p| {
        p.extensions = vec![Extension::HopByHop(vec![
            0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ])];
        p.payload_length = Some(8);
    });
    kinds
        .ip6("longer than the frame", Uncounted("bad_options"), |p| {
            p.extensions = vec![Extension::HopByHop(vec![
                0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ])];
            p.payload_length = Some(0);
        })
        .edit_frame(|frame| frame.truncated(14 + 40 + 15));
    kinds.check_on(&rig)
}
