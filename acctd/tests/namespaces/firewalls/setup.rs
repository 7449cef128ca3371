//! A set-up and what comes of it, as its file says it.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// See the head of `firewalls.rs`.
pub(super) struct Setup {
    pub(super) flags: Vec<String>,
    pub(super) forwards: bool,
    pub(super) received: Share,
    pub(super) sent: Share,
    pub(super) expected: Expected,
    pub(super) is_timed: bool,
    pub(super) is_live: bool,
    pub(super) load: String,
    pub(super) before_doctor: String,
}

/// How many of the packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    All,
    /// And more that is dropped after it was logged.
    AllAndDropped,
    Some,
    None,
    More,
    /// No group is read for them.
    NotRead,
}

/// What doctor is to say first.
pub(super) enum Expected {
    Ok,
    Not(String),
    First {
        severity: String,
        id: String,
        says: String,
    },
}

impl Setup {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let head = text.lines().take_while(|line| line.starts_with('#'));
        let value = |name: &str| {
            let prefix = format!("# {name}: ");
            head.clone()
                .find_map(|line| line.strip_prefix(&prefix))
                .map(str::trim)
        };
        let flags = value("flags").unwrap_or("-ip4-src-group=5 -ip4-dst-group=4");
        let part = |name| match value(name) {
            Some("all") => Ok(Share::All),
            Some("all-and-dropped") => Ok(Share::AllAndDropped),
            Some("part") => Ok(Share::Some),
            Some("none") => Ok(Share::None),
            Some("more") => Ok(Share::More),
            None => Ok(Share::NotRead),
            Some(other) => bail!("'# {name}: {other}' is not known"),
        };
        let doctor = value("doctor").context("no line '# doctor: …'")?;
        let expected = match doctor.split_once(' ') {
            None if doctor == "OK" => Expected::Ok,
            Some(("not", id)) => Expected::Not(id.to_owned()),
            Some((id, severity @ ("error" | "warning"))) => Expected::First {
                severity: severity.to_owned(),
                id: id.to_owned(),
                says: value("says").unwrap_or_default().to_owned(),
            },
            _ => bail!("'# doctor: {doctor}' is not known"),
        };
        let (received, sent) = (part("in")?, part("out")?);
        // Where packets are missing or doubled, OK would be the wrong word.
        let is_whole = [received, sent]
            .iter()
            .all(|part| matches!(part, Share::All | Share::AllAndDropped | Share::NotRead));
        ensure!(
            !matches!(expected, Expected::Ok) || is_whole,
            "OK where not all packets are counted once"
        );
        let (load, before_doctor) = text
            .split_once("\n# before doctor\n")
            .unwrap_or((&text, ""));
        Ok(Self {
            flags: flags.split(' ').map(str::to_owned).collect(),
            forwards: value("traffic") == Some("forward"),
            received,
            sent,
            expected,
            is_timed: value("time") == Some("nft"),
            is_live: value("live") == Some("yes"),
            load: load.to_owned(),
            before_doctor: before_doctor.to_owned(),
        })
    }
}
