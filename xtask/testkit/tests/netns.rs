//! Namespaces, devices, counters and the generator, with the kernel.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::{path::Path, time::Duration};

use testkit::{
    craft::{Ethernet, Extension, Frame, Ipv4, Ipv6, Packet},
    netns::{Namespace, Privilege},
    nft::{self, Count},
    traffic::{self, Sent, Sizes, TrafficArgs, Tun},
    veth::{Veth, add_address},
};

/// An ordinary user's id, for what works without root.
const NOBODY: u32 = 65_534;

fn generator() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_traffic"))
}

/// Runs a test by each right that can be had here. CI has all it needs, so
/// there a test that cannot run has failed.
fn by_each_right(test: impl Fn(Privilege)) {
    for privilege in [
        Privilege::Root,
        Privilege::UserNamespace,
        Privilege::UserNamespaceAs(NOBODY),
    ] {
        match privilege.available() {
            Ok(()) => test(privilege),
            Err(reason) if std::env::var_os("CI").is_none() => skip(privilege, &reason),
            Err(reason) => panic!("{privilege:?}: {reason}"),
        }
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(privilege: Privilege, reason: &str) {
    eprintln!("skipped as {privilege:?}: {reason}");
}

/// A pair of namespaces, with counters in the second that see all that
/// arrives, whatever becomes of it.
struct Link {
    a: Namespace,
    b: Namespace,
    veth: Veth,
}

impl Link {
    fn new(privilege: Privilege) -> Self {
        let a = Namespace::new(privilege).unwrap();
        let b = a.peer().unwrap();
        let veth = Veth::new(&a, "near", &b, "far").unwrap();
        nft::load(
            &b,
            "table inet t {
                counter v4 { }
                counter v6 { }
                counter any { }
                chain c {
                    type filter hook prerouting priority raw; policy accept;
                    counter name any
                    ip saddr 10.0.0.0/8 counter name v4
                    ip6 saddr 2001:db8::/32 counter name v6
                }
            }",
        )
        .unwrap();
        Self { a, b, veth }
    }

    fn args(&self, source: &str, dest: &str) -> TrafficArgs {
        TrafficArgs::new(
            &self.veth.near,
            self.veth.far_mac,
            source.parse().unwrap(),
            dest.parse().unwrap(),
        )
    }

    fn send(&self, args: &TrafficArgs) -> Sent {
        traffic::send(&self.a, generator(), args).unwrap()
    }
}

fn count(sent: &Sent) -> Count {
    Count {
        packets: sent.packets,
        bytes: sent.bytes,
    }
}

#[test]
fn every_packet_sent_is_counted_at_the_other_end() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let v4 = link.send(&TrafficArgs {
            sources: 300,
            count: 10_000,
            size: Sizes { min: 28, max: 1500 },
            ..link.args("10.0.0.1/8", "192.0.2.1/32")
        });
        let v6 = link.send(&TrafficArgs {
            sources: 300,
            count: 10_000,
            size: Sizes { min: 48, max: 1500 },
            ..link.args("2001:db8::1/48", "2001:db8:ffff::1/128")
        });
        assert_eq!((v4.packets, v6.packets), (10_000, 10_000));

        let counters = nft::counters(&link.b).unwrap();
        assert_eq!(counters["v4"], count(&v4));
        assert_eq!(counters["v6"], count(&v6));
        assert_eq!(
            counters["any"].packets, 20_000,
            "the kernel must add no packets of its own"
        );
    });
}

/// Crafted packets for the rules of a `Link`.
fn crafted_v4() -> Ipv4 {
    Ipv4::udp([10, 0, 0, 1], [192, 0, 2, 1], &[7; 72])
}

fn crafted_v6() -> Ipv6 {
    let source = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
    let dest = [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1];
    Ipv6::udp(source, dest, &[7; 72])
}

/// The packets of both kinds that the kernel lets through to the rules: for
/// each kind what is to be counted.
fn valid_packets() -> [(Vec<Packet>, Count); 2] {
    let v4 = vec![
        crafted_v4().packet(),
        Ipv4 {
            options: vec![1, 1, 1],
            ..crafted_v4()
        }
        .packet(),
    ];
    let v6 = vec![
        crafted_v6().packet(),
        Ipv6 {
            extensions: vec![
                Extension::HopByHop(vec![]),
                Extension::DestinationOptions(vec![]),
            ],
            ..crafted_v6()
        }
        .packet(),
    ];
    let counted = |bytes| Count { packets: 2, bytes };
    [(v4, counted(100 + 104)), (v6, counted(120 + 136))]
}

#[test]
fn a_crafted_frame_is_counted_unless_the_kernel_refuses_it() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let ethernet = Ethernet::to(link.veth.far_mac);
        let send = |frames: &[Frame]| {
            let sent = traffic::send_frames(&link.a, generator(), "near", frames, 1).unwrap();
            assert_eq!(sent, frames.len() as u64);
            nft::counters(&link.b).unwrap()
        };
        let refused = [
            Ipv4 {
                wrong_checksum: true,
                ..crafted_v4()
            },
            Ipv4 {
                ihl: Some(4),
                ..crafted_v4()
            },
            Ipv4 {
                total_length: Some(19),
                ..crafted_v4()
            },
            Ipv4 {
                total_length: Some(101),
                ..crafted_v4()
            },
            Ipv4 {
                version: 6,
                ..crafted_v4()
            },
        ];
        let mut refused: Vec<_> = refused
            .iter()
            .map(|v4| ethernet.frame(&v4.packet()))
            .collect();
        let whole = ethernet.frame(&crafted_v6().packet());
        refused.push(whole.clone().truncated(whole.bytes().len() - 1));
        assert_eq!(send(&refused)["any"].packets, 0);

        let [(v4, v4_count), (v6, v6_count)] = valid_packets();
        let frames: Vec<_> = v4.iter().chain(&v6).map(|p| ethernet.frame(p)).collect();
        let counters = send(&frames);
        assert_eq!((counters["v4"], counters["v6"]), (v4_count, v6_count));
        let lengths = frames.iter().map(|frame| u64::from(frame.ip_length()));
        assert_eq!(lengths.sum::<u64>(), counters["any"].bytes);
    });
}

#[test]
fn the_kernel_makes_a_packet_of_its_crafted_fragments() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let ethernet = Ethernet::to(link.veth.far_mac);
        let v4 = crafted_v4().fragments(7, &[16, 40]);
        let v6 = crafted_v6().fragments(7, &[16, 40]);
        let frames: Vec<_> = v4.iter().chain(&v6).map(|p| ethernet.frame(p)).collect();
        let send = || {
            traffic::send_frames(&link.a, generator(), "near", &frames, 1).unwrap();
            nft::counters(&link.b).unwrap()
        };
        let lengths = frames.iter().map(|frame| u64::from(frame.ip_length()));
        let pieces = Count {
            packets: 6,
            bytes: lengths.sum(),
        };
        assert_eq!(send()["any"], pieces);

        // Connection tracking needs whole packets, and has the kernel make
        // them of their fragments before any rule of this hook.
        nft::load(
            &link.b,
            "table inet whole {
                counter whole { }
                chain c {
                    type filter hook prerouting priority 0; policy accept;
                    ct state new udp dport 9 counter name whole
                }
            }",
        )
        .unwrap();
        let whole = Count {
            packets: 2,
            bytes: 100 + 120,
        };
        assert_eq!(send()["whole"], whole);
    });
}

#[test]
fn a_frame_that_cannot_be_sent_is_an_error_that_names_it() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        for (bad, reason) in [
            (1515, "exceeds the MTU of near"),
            (13, "cannot send from near"),
        ] {
            let frames = [vec![0; 60], vec![0; bad]];
            let error = traffic::send_frames(&link.a, generator(), "near", &frames, 1).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("frame 2 was not sent"), "{text}");
            assert!(text.contains(reason), "{text}");
        }
    });
}

#[test]
fn packets_written_into_a_tun_device_arrive_on_it() {
    by_each_right(|privilege| {
        if privilege == Privilege::UserNamespaceAs(NOBODY) && !everyone_may_use_tun() {
            return skip(privilege, "/dev/net/tun is not for everyone");
        }
        let link = Link::new(privilege);
        let [(v4, v4_count), (v6, v6_count)] = valid_packets();
        let packets: Vec<_> = v4.into_iter().chain(v6).collect();
        let mut tun = Tun::new(&link.b, generator(), "tun0", &packets).unwrap();
        assert_eq!(nft::counters(&link.b).unwrap()["any"].packets, 0);
        for round in 1..=2 {
            assert_eq!(tun.write().unwrap(), 4);
            let counters = nft::counters(&link.b).unwrap();
            for (name, once) in [("v4", v4_count), ("v6", v6_count)] {
                let expected = Count {
                    packets: once.packets * round,
                    bytes: once.bytes * round,
                };
                assert_eq!(counters[name], expected);
            }
        }
        drop(tun);
        let error = link.b.run(&["ip", "link", "show", "dev", "tun0"]);
        assert!(error.unwrap_err().to_string().contains("does not exist"));

        let neither = [[0x50; 20]];
        let mut tun = Tun::new(&link.b, generator(), "tun0", &neither).unwrap();
        let error = tun.write().unwrap_err();
        assert!(
            error.to_string().contains("tun0 does not take it"),
            "{error}"
        );

        let error = Tun::new(&link.b, generator(), "far", &packets).unwrap_err();
        assert!(error.to_string().contains("cannot make the tun device far"));
    });
}

fn everyone_may_use_tun() -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata("/dev/net/tun").is_ok_and(|file| file.permissions().mode() & 0o006 == 0o006)
}

#[test]
fn full_speed_loses_nothing() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let sent = link.send(&TrafficArgs {
            sources: 65_536,
            count: 300_000,
            ..link.args("10.0.0.1/8", "192.0.2.1/32")
        });
        assert_eq!(sent.packets, 300_000);
        assert_eq!(nft::counters(&link.b).unwrap()["v4"], count(&sent));
    });
}

#[test]
fn frames_that_are_not_ip_on_this_link_reach_no_rule() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let plain = TrafficArgs {
            count: 10,
            ..link.args("10.0.0.1/8", "192.0.2.1/32")
        };
        link.send(&TrafficArgs {
            vlan: vec![100, 7],
            ..plain.clone()
        });
        link.send(&TrafficArgs {
            ether_type: Some(0x0806),
            ..plain
        });
        let device = link
            .b
            .run(&["ip", "-s", "-j", "link", "show", "far"])
            .unwrap();
        let device: serde_json::Value = serde_json::from_str(&device).unwrap();
        assert_eq!(device[0]["stats64"]["rx"]["packets"], 20);
        assert_eq!(nft::counters(&link.b).unwrap()["any"].packets, 0);
    });
}

#[test]
fn clock_sources_avoid_the_full_second() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let sent = link.send(&TrafficArgs {
            clock_sources: true,
            rate: 10_000,
            count: 12_000,
            ..link.args("10.1.0.0/16", "192.0.2.1/32")
        });
        assert_eq!(sent.packets, 12_000);
        // At this rate the packets take 1.2 s, so at least one full second
        // came by, and with it 60 ms of silence.
        assert!(sent.seconds >= 1.25, "{sent:?}");
        assert_eq!(nft::counters(&link.b).unwrap()["v4"], count(&sent));
    });
}

#[test]
fn ordinary_sockets_work_over_the_pair() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        for (namespace, device, last) in [(&link.a, "near", 1), (&link.b, "far", 2)] {
            add_address(namespace, device, &format!("10.0.0.{last}/24")).unwrap();
            add_address(namespace, device, &format!("2001:db8::{last}/64")).unwrap();
        }
        for address in ["10.0.0.2", "2001:db8::2"] {
            link.a
                .run(&["ping", "-n", "-c", "1", "-W", "5", address])
                .unwrap();
        }
        let counters = nft::counters(&link.b).unwrap();
        assert_eq!(counters["v4"].packets, 1);
        // Beside the ping there are neighbour solicitations.
        assert!(counters["v6"].packets >= 1);
    });
}

#[test]
fn a_generator_can_be_watched_and_stopped() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let endless = TrafficArgs {
            count: u64::MAX,
            rate: 1000,
            ..link.args("10.0.0.1/8", "192.0.2.1/32")
        };
        let mut running = traffic::spawn(&link.a, generator(), &endless).unwrap();
        assert!(running.process().wait(Duration::from_millis(200)).is_err());
        drop(running);
        let seen = nft::counters(&link.b).unwrap()["v4"];
        assert!(seen.packets > 0);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(nft::counters(&link.b).unwrap()["v4"], seen);

        let short = TrafficArgs {
            count: 5,
            ..endless
        };
        let running = traffic::spawn(&link.a, generator(), &short).unwrap();
        assert_eq!(running.finish().unwrap().packets, 5);
    });
}

#[test]
fn a_packet_that_cannot_be_sent_is_an_error_that_says_why() {
    by_each_right(|privilege| {
        let link = Link::new(privilege);
        let plain = link.args("10.0.0.1/8", "192.0.2.1/32");
        let complaint = |args: &TrafficArgs| {
            let error = traffic::send(&link.a, generator(), args).unwrap_err();
            error.to_string()
        };
        let size = Sizes {
            min: 1501,
            max: 1501,
        };
        let long = complaint(&TrafficArgs {
            size,
            ..plain.clone()
        });
        assert!(long.contains("size 1501 exceeds the MTU"), "{long}");
        let dev = "absent".to_owned();
        let absent = complaint(&TrafficArgs { dev, ..plain });
        assert!(
            absent.contains("cannot send from device absent"),
            "{absent}"
        );
    });
}

#[test]
fn a_program_has_the_pid_of_its_command_and_sees_its_namespace() {
    by_each_right(|privilege| {
        let namespace = Namespace::new(privilege).unwrap();
        let mut command = namespace.command("sh");
        command.args(["-c", "echo $$; ls /sys/class/net"]);
        let child = command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(output, format!("{pid}\nlo\n"));
        let groups = namespace.run(&["cat", "/proc/net/netfilter/nfnetlink_log"]);
        assert_eq!(groups.unwrap(), "", "acctd reads this file");
    });
}

#[test]
fn nothing_is_left_of_a_dropped_namespace() {
    by_each_right(|privilege| {
        let namespace = Namespace::new(privilege).unwrap();
        let holder = format!("/proc/{}", namespace.pid());
        assert!(Path::new(&holder).exists());
        drop(namespace);
        assert!(!Path::new(&holder).exists());
    });
}

#[test]
fn a_ruleset_that_nft_refuses_is_an_error_with_its_complaint() {
    by_each_right(|privilege| {
        let namespace = Namespace::new(privilege).unwrap();
        let error = nft::load(&namespace, "nonsense").unwrap_err();
        assert!(error.to_string().contains("syntax error"), "{error}");
    });
}
