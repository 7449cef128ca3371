//! Whether the local time that names have is the one that was asked for. chrono takes UTC without a word
//! where it does not find or understand the zone, and hours would stand on the wrong day's bill.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use thiserror::Error;
use tz::TimeZone;

use crate::model::zone::Zone;

/// Where chrono looks for zones, in this order.
const DIRECTORIES: [&str; 4] = [
    "/usr/share/zoneinfo",
    "/share/zoneinfo",
    "/etc/zoneinfo",
    "/usr/share/lib/zoneinfo",
];
const LOCALTIME: &str = "/etc/localtime";

/// Why times would be written in UTC that should be in another zone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    /// `TZ` is neither a zone nor a POSIX string.
    #[error(
        "TZ={0:?} is no time zone: /usr/share/zoneinfo has no such zone, and it is no POSIX string such as \
         CET-1CEST,M3.5.0,M10.5.0/3; correct it, or unset it for the machine's zone, or use --utc"
    )]
    Unknown(String),
    /// The file that is to hold the zone does not.
    #[error(
        "{0} cannot be used as a time zone: {1}; correct it, or install tzdata again, or use --utc"
    )]
    Unusable(String, String),
    /// Zones are not installed.
    #[error(
        "no time zones are installed, so times are in UTC where {0} asks for another zone: install tzdata, or \
         set TZ to a POSIX string such as CET-1CEST,M3.5.0,M10.5.0/3, or use --utc"
    )]
    NoZones(String),
}

impl Trouble {
    /// Whether what was typed is wrong, and not what is installed.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Unusable(what, _) => what.starts_with("TZ="),
            Self::NoZones(_) => false,
        }
    }
}

/// What is wrong with the zone in which times are written, if it is the machine's.
#[must_use]
pub fn trouble_of(zone: Zone) -> Option<Trouble> {
    let is_asked_for = zone == Zone::Local;
    is_asked_for.then(|| trouble(env::var_os("TZ").as_deref(), Path::new("/")))?
}

/// As [`trouble_of`], for this value of `TZ` on a machine whose files are below `root`.
fn trouble(tz: Option<&OsStr>, root: &Path) -> Option<Trouble> {
    let Some(tz) = tz else {
        return trouble_with_localtime(root);
    };
    let Some(text) = tz.to_str() else {
        return Some(Trouble::Unknown(tz.to_string_lossy().into_owned()));
    };
    match text {
        // Both are UTC.
        "" => return None,
        "localtime" => return trouble_with_localtime(root),
        _ => {}
    }
    let name = text.strip_prefix(':').unwrap_or(text);
    if let Some(found) = find(name, root) {
        return match usable(&found) {
            Ok(()) => None,
            Err(error) => Some(Trouble::Unusable(format!("TZ={text:?}"), error)),
        };
    }
    // Where no zone has this name, chrono takes it for a POSIX string.
    if name == text && is_posix(text) {
        return None;
    }
    let are_installed = DIRECTORIES.iter().any(|it| below(root, it).is_dir());
    Some(if are_installed || name.starts_with('/') {
        Trouble::Unknown(text.to_owned())
    } else {
        Trouble::NoZones(format!("TZ={text:?}"))
    })
}

/// Without that file the machine has no zone but UTC.
fn trouble_with_localtime(root: &Path) -> Option<Trouble> {
    let path = below(root, LOCALTIME);
    fs::symlink_metadata(&path).ok()?;
    let error = usable(&path).err()?;
    let target = fs::read_link(&path).map(|target| format!(" (a link to {})", target.display()));
    let what = format!("{LOCALTIME}{}", target.unwrap_or_default());
    let are_installed = DIRECTORIES.iter().any(|it| below(root, it).is_dir());
    Some(if are_installed || path.exists() {
        Trouble::Unusable(what, format!("{error}; times are in UTC"))
    } else {
        Trouble::NoZones(what)
    })
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn find(name: &str, root: &Path) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(below(root, name)).filter(|path| path.exists());
    }
    let mut places = DIRECTORIES.iter().map(|it| below(root, it).join(name));
    places.find(|path| !name.is_empty() && path.exists())
}

fn usable(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    TimeZone::from_tz_data(&bytes).map_err(|error| format!("it is damaged ({error})"))?;
    Ok(())
}

fn is_posix(text: &str) -> bool {
    TimeZone::from_posix_tz(text).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const ZONES: &str = "usr/share/zoneinfo";

    /// With one zone, which is the machine's, or without zones.
    fn machine(has_zones: bool) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        if has_zones {
            let zones = root.path().join(ZONES);
            fs::create_dir_all(zones.join("Test")).unwrap();
            fs::write(zones.join("Test/Tokyo"), tokyo()).unwrap();
            fs::write(zones.join("Test/Damaged"), "TZif").unwrap();
        }
        symlink(
            format!("../{ZONES}/Test/Tokyo"),
            root.path().join("etc/localtime"),
        )
        .unwrap();
        root
    }

    /// A zone without transitions (RFC 8536, version 1).
    fn tokyo() -> Vec<u8> {
        let mut file = b"TZif".to_vec();
        file.extend([0; 16]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            file.extend(count.to_be_bytes());
        }
        file.extend(32_400_i32.to_be_bytes());
        file.extend([0, 0]);
        file.extend(b"JST\0");
        file
    }

    fn text(tz: Option<&str>, root: &TempDir) -> Option<String> {
        trouble(tz.map(OsStr::new), root.path()).map(|trouble| trouble.to_string())
    }

    #[test]
    fn what_names_a_zone_is_taken() {
        let root = machine(true);
        for tz in [
            None,
            Some(""),
            Some("localtime"),
            Some("Test/Tokyo"),
            Some(":Test/Tokyo"),
            Some("/usr/share/zoneinfo/Test/Tokyo"),
            Some(":/usr/share/zoneinfo/Test/Tokyo"),
            Some("UTC0"),
            Some("CET-1CEST,M3.5.0,M10.5.0/3"),
            Some("<+0330>-3:30"),
        ] {
            assert_eq!(text(tz, &root), None, "{tz:?}");
        }
    }

    #[test]
    fn what_names_none_is_refused() {
        let root = machine(true);
        for tz in [
            "Europe/Berln",
            ":Europe/Berln",
            ":",
            "/usr/share/zoneinfo/Europe/Berln",
            "CET-1CEST,M3.5.0",
            ":CET-1CEST,M3.5.0,M10.5.0/3",
        ] {
            let trouble = trouble(Some(OsStr::new(tz)), root.path());
            assert_eq!(trouble, Some(Trouble::Unknown(tz.into())), "{tz}");
        }
        let trouble = trouble(Some(OsStr::from_bytes(b"Test/\xff")), root.path());
        assert!(trouble.unwrap().is_usage());
        for tz in ["Test", "Test/Damaged"] {
            let trouble = super::trouble(Some(OsStr::new(tz)), root.path()).unwrap();
            assert!(trouble.is_usage(), "{trouble}");
            let text = trouble.to_string();
            assert!(text.contains(tz) && text.contains("--utc"), "{text}");
        }
    }

    #[test]
    fn where_no_zones_are_that_is_said() {
        let root = machine(false);
        for (tz, what) in [
            (None, "/etc/localtime (a link to ../usr/share"),
            (Some("Test/Tokyo"), "TZ=\"Test/Tokyo\" asks"),
        ] {
            let trouble = trouble(tz.map(OsStr::new), root.path()).unwrap();
            assert!(!trouble.is_usage());
            let text = trouble.to_string();
            assert!(
                text.contains(what) && text.contains("install tzdata"),
                "{text}"
            );
        }
        assert_eq!(text(Some("CET-1CEST,M3.5.0,M10.5.0/3"), &root), None);
        fs::remove_file(root.path().join("etc/localtime")).unwrap();
        assert_eq!(text(None, &root), None, "it is UTC then");
    }

    #[test]
    fn a_link_of_the_machines_that_leads_nowhere_is_told() {
        let root = machine(true);
        fs::remove_file(root.path().join(ZONES).join("Test/Tokyo")).unwrap();
        let trouble = trouble(None, root.path()).unwrap();
        assert!(!trouble.is_usage());
        let text = trouble.to_string();
        assert!(text.contains("times are in UTC"), "{text}");
    }
}
