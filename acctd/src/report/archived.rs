//! Samples of which files are archived. The rows of an archive are in order of their addresses, so all its samples are read
//! at once, an address after the other; on several processors, each with some of the addresses.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::columns::Columns;
use super::plan::{Plan, Sample};
use super::sums::{Grouping, HostLoss, Sums, add_overflow, known_missing, loss_of};
use super::tally::{ByWho, Sum, Who, by_who};
use crate::cli::report::GroupBy;
use crate::files::archive::Archive;
use crate::files::archive_rows::{ArchiveRows, Wanted};
use crate::files::directory::{File, Host};
use crate::files::journal::{IN, Loss, OUT};
use crate::files::sorted::{CsvRows, Merged, Source, buffer_size, in_order};
use crate::model::columns::Columns as CsvColumns;
use crate::model::row::Row;

/// A stretch of archives, and of files that are not archived.
pub(super) struct Opened<'o, 'f> {
    samples: &'o [Sample<'f>],
    plan: &'o Plan<'f>,
    grouping: &'o Grouping,
    n_hosts: usize,
    places: Vec<Place<'f>>,
    /// Of each sample.
    losses: Vec<Vec<HostLoss>>,
    /// Of each sample, of all hosts together.
    loss_of_all: Vec<Loss>,
    /// Has copies of files whose rows are not in order.
    _scratch: TempDir,
}

/// A file that is not archived, or an archive.
struct Place<'f> {
    host: usize,
    archive: Option<&'f Archive>,
    /// Of a file that is not archived: its rows, in order.
    path: PathBuf,
    /// Its files, each with the number of its sample in the stretch; those that are not in the period are none.
    files: Vec<Option<(usize, &'f File)>>,
}

/// Addresses from the first to before the last, which is without end if it is none.
pub(super) struct Part {
    from: Option<IpAddr>,
    until: Option<IpAddr>,
}

/// What was read of a part.
pub(super) struct Read {
    /// Of prefixes; of others, `samples` has them.
    sums: Sums,
    /// Of each sample.
    samples: ByWho<Vec<Option<Sum>>>,
    /// Of each file of each place: rows, and bytes in and out.
    found: Vec<Vec<(u64, [u64; 2])>>,
}

impl<'o, 'f> Opened<'o, 'f> {
    pub(super) fn new(
        samples: &'o [Sample<'f>],
        plan: &'o Plan<'f>,
        hosts: &'f [Host],
        grouping: &'o Grouping,
    ) -> Result<Self> {
        let mut archives: BTreeMap<(usize, usize), Place<'f>> = BTreeMap::new();
        let mut files = Vec::new();
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        for (number, sample) in samples.iter().enumerate() {
            for &(host, file) in &sample.files {
                let Some((archive, at)) = file.archived else {
                    let copy = scratch.path().join(files.len().to_string());
                    let path = in_order(&file.path, copy);
                    files.push(Place {
                        host,
                        archive: None,
                        path: path.with_context(|| file.path.display().to_string())?,
                        files: vec![Some((number, file))],
                    });
                    continue;
                };
                let place = archives.entry((host, archive)).or_insert_with(|| {
                    let archive = &hosts[host].archives[archive];
                    Place {
                        host,
                        archive: Some(archive),
                        path: PathBuf::new(),
                        files: vec![None; archive.files.len()],
                    }
                });
                place.files[at] = Some((number, file));
            }
        }
        let mut opened = Self {
            samples,
            plan,
            grouping,
            n_hosts: hosts.len(),
            places: archives.into_values().chain(files).collect(),
            losses: Vec::new(),
            loss_of_all: Vec::new(),
            _scratch: scratch,
        };
        opened.losses = opened.all_losses()?;
        let of_all = opened.losses.iter();
        opened.loss_of_all = of_all.map(|it| loss_of(Who::All, it)).collect();
        Ok(opened)
    }

    pub(super) fn n_files(&self) -> u64 {
        let n: usize = self.samples.iter().map(|sample| sample.files.len()).sum();
        u64::try_from(n).unwrap_or(u64::MAX)
    }

    /// What may be missing has to be known before the first prefix is added up, and the rows of overflow say it too.
    fn all_losses(&self) -> Result<Vec<Vec<HostLoss>>> {
        let mut by_file: BTreeMap<(usize, usize), Loss> = BTreeMap::new();
        let mut has_overflow = [false; 2];
        for (at, place) in self.places.iter().enumerate() {
            for (number, file) in place.files.iter().enumerate() {
                let described = file.and_then(|(_, file)| file.described.as_ref());
                let Some(described) = described else { continue };
                by_file.insert((at, number), described.loss);
                for (any, of_file) in has_overflow.iter_mut().zip(described.has_overflow) {
                    *any |= of_file.contains(&true);
                }
            }
        }
        let unspecified: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for (address, _) in unspecified.into_iter().zip(has_overflow).filter(|it| it.1) {
            let mut merged = self.merged(&Part {
                from: Some(address),
                until: None,
            })?;
            while merged.address().is_some_and(|next| next < address) {
                merged.take(|_, _, _| Ok(()))?;
            }
            if merged.address() == Some(address) {
                merged.take(|place, number, row| {
                    if let Some((_, file)) = self.places[place].files[number] {
                        let loss = by_file.entry((place, number)).or_default();
                        add_overflow(loss, file, row);
                    }
                    Ok(())
                })?;
            }
        }
        let mut losses: Vec<Vec<HostLoss>> = Vec::new();
        for sample in self.samples {
            losses.push(known_missing(self.plan, sample, self.n_hosts));
        }
        for ((place, number), loss) in by_file.into_iter().filter(|(_, loss)| !loss.is_none()) {
            let place = &self.places[place];
            if let Some((sample, _)) = place.files[number] {
                losses[sample].push(HostLoss::new(&self.samples[sample], place.host, loss));
            }
        }
        Ok(losses)
    }

    /// About so many parts, with as many rows each. Files are read from their beginning, so one that is not archived makes
    /// it one part.
    pub(super) fn parts(&self, n: usize) -> Vec<Part> {
        let mut archives: Vec<&Archive> = self.places.iter().filter_map(|it| it.archive).collect();
        let n = if archives.len() == self.places.len() {
            n
        } else {
            1
        };
        archives.sort_by_key(|archive| archive.first_addresses.len());
        let groups = archives.last().map_or(&[][..], |it| &it.first_addresses);
        let mut bounds: Vec<IpAddr> = (1..n)
            .filter_map(|at| groups.get(groups.len() * at / n).copied())
            .collect();
        bounds.dedup();
        let starts = [None].into_iter().chain(bounds.iter().copied().map(Some));
        let ends = bounds.iter().copied().map(Some).chain([None]);
        starts
            .zip(ends)
            .map(|(from, until)| Part { from, until })
            .collect()
    }

    /// The rows of a part, and some before it.
    fn merged(&self, part: &Part) -> Result<Merged> {
        let n_files = self.places.iter().filter(|it| it.archive.is_none()).count();
        let size = buffer_size(n_files);
        let sources = self.places.iter().map(|place| {
            let Some(archive) = place.archive else {
                let rows = CsvRows::open(&place.path, size)?;
                return Ok(Source::Csv(Box::new(rows)));
            };
            let wanted = if has_kernel(archive) {
                Wanted::All
            } else {
                Wanted::Nflog
            };
            let rows = ArchiveRows::open(archive, part.groups(archive), wanted)?;
            Ok(Source::Archive(Box::new(rows)))
        });
        Ok(Merged::new(sources.collect::<Result<_>>()?))
    }

    pub(super) fn read(&self, part: &Part) -> Result<Read> {
        if let [place] = &self.places[..]
            && let Some(archive) = place.archive
            && !has_kernel(archive)
            && place.n_files() == self.samples.len()
        {
            return self.read_one(place, archive, part);
        }
        let n_samples = self.samples.len();
        let mut read = Read {
            sums: Sums::new(self.plan),
            samples: by_who(),
            found: self
                .places
                .iter()
                .map(|place| vec![Default::default(); place.files.len()])
                .collect(),
        };
        let mut all: Vec<Option<Sum>> = vec![None; n_samples];
        let mut of_address: Vec<Option<Sum>> = vec![None; n_samples];
        let mut present: Vec<usize> = Vec::with_capacity(n_samples);
        let mut merged = self.merged(part)?;
        while let Some(address) = merged.address() {
            if part.until.is_some_and(|until| until <= address) {
                break;
            }
            let is_before = part.from.is_some_and(|from| address < from);
            merged.take(|place, number, row| {
                let of_place = &self.places[place];
                let Some((sample, _)) = of_place.files[number].filter(|_| !is_before) else {
                    return Ok(());
                };
                note(&mut read.found[place][number], row);
                read.sums.n_rows += 1;
                read.sums.has_kernel |= row.kernel.is_some();
                of_address[sample]
                    .get_or_insert_with(|| {
                        present.push(sample);
                        Sum::default()
                    })
                    .add(row);
                if self.grouping.by == GroupBy::Host {
                    let who = Who::Host(of_place.host);
                    let samples = read.samples.entry(who);
                    let samples = samples.or_insert_with(|| vec![None; n_samples]);
                    samples[sample].get_or_insert_default().add(row);
                }
                Ok(())
            })?;
            let who = match self.grouping.by {
                GroupBy::Host => None,
                GroupBy::Prefix | GroupBy::Customer => Some(self.grouping.who(0, address)),
            };
            // Those of one part of the period are together.
            present.sort_unstable();
            for samples in present.chunk_by(|a, b| self.samples[*a].span == self.samples[*b].span) {
                let mut total = Sum::default();
                for at in samples {
                    if let Some(sum) = &of_address[*at] {
                        total.append(sum);
                        all[*at].get_or_insert_default().append(sum);
                    }
                }
                let sums = samples
                    .iter()
                    .filter_map(|at| Some((*at, of_address[*at].take()?)));
                self.add_samples(&mut read, who, samples[0], &total, sums);
            }
            present.clear();
        }
        read.samples.insert(Who::All, all);
        Ok(read)
    }

    /// One archive whose files are a sample each: columns are added up, not rows.
    fn read_one(&self, place: &Place<'_>, archive: &Archive, part: &Part) -> Result<Read> {
        let n_samples = self.samples.len();
        let first = place.files.iter().position(Option::is_some).unwrap_or(0);
        let mut read = Read {
            sums: Sums::new(self.plan),
            samples: by_who(),
            found: vec![vec![Default::default(); place.files.len()]],
        };
        let mut all = Columns::new(n_samples);
        let mut of_address = Columns::new(n_samples);
        let mut rows = ArchiveRows::open(archive, part.groups(archive), Wanted::Nflog)?;
        while let Some(address) = rows.address() {
            if part.until.is_some_and(|until| until <= address) {
                break;
            }
            rows.take_columns(&mut |file, columns| of_address.set(file, first, columns))?;
            if part.from.is_none_or(|from| from <= address) {
                all.append(&of_address);
                let who = match self.grouping.by {
                    GroupBy::Host => None,
                    GroupBy::Prefix | GroupBy::Customer => Some(self.grouping.who(0, address)),
                };
                let mut at = of_address.used.start;
                while at < of_address.used.end {
                    let span = self.samples[at].span;
                    let rest = &self.samples[at..of_address.used.end];
                    let end = at + rest.partition_point(|sample| sample.span == span);
                    let sums = (at..end)
                        .filter(|at| of_address.n_rows[*at] > 0)
                        .map(|at| (at, of_address.sum(at)));
                    let total = of_address.total(at..end);
                    self.add_samples(&mut read, who, at, &total, sums);
                    at = end;
                }
            }
            of_address.clear();
        }
        for (at, found) in read.found[0]
            .iter_mut()
            .skip(first)
            .take(n_samples)
            .enumerate()
        {
            *found = (all.n_rows[at], [all.counters[2][at], all.counters[0][at]]);
        }
        read.sums.n_rows = all.n_rows.iter().sum();
        let sums = (0..n_samples).map(|at| (all.n_rows[at] > 0).then(|| all.sum(at)));
        let sums: Vec<Option<Sum>> = sums.collect();
        if self.grouping.by == GroupBy::Host {
            read.samples.insert(Who::Host(place.host), sums.clone());
        }
        read.samples.insert(Who::All, sums);
        Ok(read)
    }

    /// Adds the sums of an address in samples of one part of the period, of which `first` is one.
    fn add_samples(
        &self,
        read: &mut Read,
        who: Option<Who>,
        first: usize,
        total: &Sum,
        sums: impl Iterator<Item = (usize, Sum)>,
    ) {
        match who {
            Some(who @ Who::Prefix(_)) => {
                let span = self.samples[first].span;
                let line = read.sums.lines[span].of(who);
                let rule = self.grouping.rule(who, self.plan.spans[span].n_samples);
                let families = self.grouping.families(who);
                line.sum.append(total);
                for (at, sum) in sums {
                    let sample = &self.samples[at];
                    if sample.is_counted {
                        let loss = &self.loss_of_all[at];
                        line.add_sample(&sum, loss, families, sample.number, &rule);
                    }
                }
            }
            Some(who) => {
                let of_who = read.samples.entry(who);
                let of_who = of_who.or_insert_with(|| vec![None; self.samples.len()]);
                for (at, sum) in sums {
                    of_who[at].get_or_insert_default().append(&sum);
                }
            }
            // The hosts have it already.
            None => sums.for_each(drop),
        }
    }

    /// Adds what was read of all parts.
    pub(super) fn add_to(&self, all: &mut Sums, parts: Vec<Read>) -> Result<()> {
        let mut samples: ByWho<Vec<Option<Sum>>> = by_who();
        let mut found: Vec<Vec<(u64, [u64; 2])>> = Vec::new();
        for part in parts {
            all.append(part.sums, self.plan, self.grouping);
            for (who, of_part) in part.samples {
                let whole = samples.entry(who);
                let whole = whole.or_insert_with(|| vec![None; self.samples.len()]);
                for (whole, sum) in whole.iter_mut().zip(of_part) {
                    if let Some(sum) = sum {
                        whole.get_or_insert_default().append(&sum);
                    }
                }
            }
            found.resize_with(part.found.len(), Vec::new);
            for (whole, of_part) in found.iter_mut().zip(part.found) {
                whole.resize(of_part.len(), Default::default());
                for (whole, of_part) in whole.iter_mut().zip(of_part) {
                    whole.0 += of_part.0;
                    whole.1[IN] += of_part.1[IN];
                    whole.1[OUT] += of_part.1[OUT];
                }
            }
        }
        for (number, sample) in self.samples.iter().enumerate() {
            // A sample has a sum of all, even if its files are empty.
            samples
                .entry(Who::All)
                .or_insert_with(|| vec![None; self.samples.len()])[number]
                .get_or_insert_default();
            for (who, sums) in &samples {
                if let Some(sum) = &sums[number] {
                    let losses = &self.losses[number];
                    all.add(*who, sum, losses, sample, self.plan, self.grouping);
                }
            }
        }
        all.losses.extend(self.losses.iter().flatten());
        for (place, found) in self.places.iter().zip(found) {
            place.check(&found)?;
        }
        if self.grouping.is_plotted {
            for place in &self.places {
                all.digests.extend(place.digests()?);
            }
        }
        Ok(())
    }
}

impl Place<'_> {
    /// In the period.
    fn n_files(&self) -> usize {
        self.files.iter().flatten().count()
    }

    /// An error if a file has not what it had, or not what its line in the journal says.
    fn check(&self, found: &[(u64, [u64; 2])]) -> Result<()> {
        for (number, (file, (rows, bytes))) in self.files.iter().zip(found).enumerate() {
            let Some((_, file)) = file else { continue };
            let name = || file.path.display().to_string();
            if let Some(archive) = self.archive {
                let archived = archive.files[number].rows;
                ensure!(
                    *rows == archived,
                    "{}: it has {rows} rows of {}, which had {archived}",
                    archive.path.display(),
                    archive.files[number].name
                );
            }
            if let Some(described) = &file.described {
                described.check(*rows, *bytes).with_context(name)?;
            }
        }
        Ok(())
    }

    /// Of its files in the period.
    fn digests(&self) -> Result<Vec<[u8; 32]>> {
        let numbered = self.files.iter().enumerate();
        let in_period = numbered.filter_map(|(number, file)| Some((number, file.as_ref()?.1)));
        let digests = in_period.map(|(number, file)| match self.archive {
            Some(archive) => Ok(archive.files[number].sha256),
            None => Ok(Sha256::digest(fs::read(&file.path)?).into()),
        });
        digests.collect()
    }
}

impl Part {
    /// The row groups that may have its rows.
    fn groups(&self, archive: &Archive) -> Range<usize> {
        let first = &archive.first_addresses;
        let start = self
            .from
            .map_or(0, |from| first.partition_point(|it| *it <= from));
        let end = self
            .until
            .map_or(first.len(), |until| first.partition_point(|it| *it < until));
        let start = start.saturating_sub(1);
        start..end.max(start)
    }
}

fn has_kernel(archive: &Archive) -> bool {
    let mut files = archive.files.iter();
    files.any(|file| file.columns >= CsvColumns::CrossCheck)
}

fn note((rows, bytes): &mut (u64, [u64; 2]), row: &Row) {
    *rows += 1;
    bytes[IN] += row.dest.bytes;
    bytes[OUT] += row.source.bytes;
}
