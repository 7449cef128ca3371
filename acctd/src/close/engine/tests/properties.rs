//! Whatever the clock does, and whenever the engine looks: each packet is in one file.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    /// A little forward, or by a jump either way.
    Clock(i64),
    Send(u8),
    SendStamped(u8, i64),
    Look,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_i64..12).prop_map(Act::Clock),
        1 => (-200_i64..200).prop_map(Act::Clock),
        4 => (0_u8..9).prop_map(Act::Send),
        2 => (0_u8..9, -30_i64..30).prop_map(|(host, offset)| Act::SendStamped(host, offset)),
        2 => Just(Act::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// `finish` compares the sums of all files with what was sent.
    #[test]
    fn whatever_the_clock_does_each_packet_is_in_one_file(
        is_checked in any::<bool>(),
        acts in proptest::collection::vec(any_act(), 0..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::start_with(is_checked, "10s", Zone::Utc, DAY + 3);
            let mut now = DAY + 3;
            for act in acts {
                match act {
                    Act::Clock(by) => now += by,
                    Act::Send(host) => rig.send(host),
                    Act::SendStamped(host, offset) => {
                        rig.send_stamped(host, Some((now + offset) * SECOND));
                    }
                    Act::Look => {
                        rig.at(now).await;
                        continue;
                    }
                }
                // The readers see the clock before the engine does.
                rig.clock.store(now * SECOND, Ordering::Relaxed);
            }
            rig.finish().await;
        });
    }
}
