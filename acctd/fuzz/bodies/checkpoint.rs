//! Checkpoints, as a crash or anybody may have left them: whatever the bytes are, they are refused, or
//! what is read makes sense, is written as it was read, and makes a file.

use acctd::model::closed_interval::ClosedInterval;
use acctd::model::columns::Columns;
use acctd::model::prefix::Side;
use acctd::model::zone::Zone;
use acctd::output::checkpoint::Checkpoint;
use acctd::output::csv::write_rows;
use acctd::output::journal_line;
use acctd::restart::checksummed;
use acctd::restart::checksummed::Damage;
use acctd_common::Counters;

pub(crate) fn take(data: &[u8]) {
    let _refused_or_read = read(data);
    // Nothing would get past the first line and the checksum.
    let mut bytes = [b"acctd checkpoint 1\n", data].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let Ok(checkpoint) = read(&bytes) else {
        return;
    };
    let text = format!("{checkpoint:?}");
    let period = checkpoint.period();
    assert!(period.start <= period.end);
    let n_packets = checkpoint.n_packets();
    let (groups, gaps) = (checkpoint.groups.clone(), checkpoint.gaps.clone());
    assert!(!groups.is_empty() && groups.iter().all(|group| group.config.group.0 > 0));

    let mut again = Vec::new();
    checksummed::write(&checkpoint.into_saved(), &mut again).expect("memory takes it");
    let again = read(&again).expect("what was written");
    assert_eq!(format!("{again:?}"), text);

    let sum = |side| {
        let mut sum = Counters::default();
        for group in groups.iter().filter(|group| group.config.side == side) {
            sum.add(Counters {
                bytes: group.counts.bytes,
                packets: group.counts.packets,
            });
        }
        sum
    };
    let (source, dest) = (sum(Side::Source), sum(Side::Dest));
    assert_eq!(n_packets, source.packets + dest.packets);
    let mut closed = ClosedInterval::new(period, groups);
    closed.gaps = gaps;
    let mut file = Vec::new();
    let totals =
        write_rows(&mut file, "time", closed.rows(), Columns::Nflog).expect("memory takes it");
    assert_eq!((totals.source, totals.dest), (source, dest));
    let line = journal_line::line(&closed, &[], Zone::Utc, "file", &totals, 0.0);
    assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
}

fn read(bytes: &[u8]) -> Result<Checkpoint, Damage> {
    Checkpoint::from_saved(checksummed::read(bytes)?)
}
