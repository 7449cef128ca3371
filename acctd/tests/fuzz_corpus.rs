//! The fuzz targets with stable Rust: each takes its corpus, what is like it, and noise. What the
//! fuzzer finds becomes a file of the corpus, and so a case of this test for good.
//! `cargo xtask fuzz` lets libFuzzer look for more.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[test]
fn netlink_datagrams() {
    replay_and_vary("netlink", bodies::netlink::take, 30_000);
}

#[test]
fn checkpoints() {
    replay_and_vary("checkpoint", bodies::checkpoint::take, 30_000);
}

#[test]
fn command_lines() {
    replay_and_vary("flags", bodies::flags::take, 3_000);
}

#[test]
fn maps_of_a_program_of_ones_own() {
    replay_and_vary("epoch_map", bodies::epoch_map::take, 20_000);
}

#[test]
fn objects_of_ones_own() {
    replay_and_vary("object", bodies::object::take, 10_000);
}

/// A target's corpus as it is, then `n_cases` inputs made of it or of nothing.
fn replay_and_vary(target: &str, take: fn(&[u8]), n_cases: u32) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut corpus = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let file = fs::read(&path).unwrap();
        let taken = std::panic::catch_unwind(|| take(&file));
        assert!(taken.is_ok(), "{} is not taken; see above", path.display());
        corpus.push(file);
    }
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    let config = Config {
        cases: n_cases,
        failure_persistence: None,
        ..Config::default()
    };
    let input = prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..512),
        4 => varied(corpus),
    ];
    let outcome = TestRunner::new(config).run(&input, |bytes| {
        take(&bytes);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// A file of the corpus, changed in a few places.
fn varied(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<Change>(), any::<prop::sample::Index>()), 0..6);
    (prop::sample::select(corpus), changes).prop_map(|(mut bytes, changes)| {
        for (change, at) in changes {
            let at = at.index(bytes.len() + 1);
            change.make(&mut bytes, at);
        }
        bytes
    })
}

/// What may be done to bytes at some place.
#[derive(Clone, Debug)]
enum Change {
    Flip(u8),
    Set(u8),
    Insert(Vec<u8>),
    /// Say so many bytes again.
    Repeat(usize),
    Remove(usize),
    CutOff,
}

impl Change {
    fn make(self, bytes: &mut Vec<u8>, at: usize) {
        match (self, bytes.get_mut(at)) {
            (Self::Flip(bit), Some(byte)) => *byte ^= 1 << bit,
            (Self::Set(value), Some(byte)) => *byte = value,
            (Self::Insert(more), _) => drop(bytes.splice(at..at, more)),
            (Self::Repeat(length), _) => {
                let end = (at + length).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            (Self::Remove(length), _) => drop(bytes.drain(at..(at + length).min(bytes.len()))),
            (Self::CutOff, _) => bytes.truncate(at),
            (Self::Flip(_) | Self::Set(_), None) => {}
        }
    }
}

impl Arbitrary for Change {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let telling = prop::sample::select(vec![0, 1, 4, 0x7f, 0x80, 0xff]);
        prop_oneof![
            (0..8_u8).prop_map(Self::Flip),
            any::<u8>().prop_map(Self::Set),
            telling.prop_map(Self::Set),
            proptest::collection::vec(any::<u8>(), 1..9).prop_map(Self::Insert),
            (1..256_usize).prop_map(Self::Repeat),
            (1..64_usize).prop_map(Self::Remove),
            Just(Self::CutOff),
        ]
        .boxed()
    }
}
