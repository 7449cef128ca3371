//! Checks the time zone of file names and rows. If chrono cannot find or read the zone, it uses UTC without an
//! error, and hours would be billed to the wrong day.

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

/// Why chrono would write UTC instead of the zone that the user wants.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ZoneError {
    /// `TZ` names no zone and is not a POSIX string.
    #[error(
        "TZ={0:?} is not a time zone: /usr/share/zoneinfo has no such zone, and it is not a POSIX string such as \
         CET-1CEST,M3.5.0,M10.5.0/3; correct it, or unset it to use the machine's zone, or use --utc"
    )]
    Unknown(String),
    /// The file of the zone is damaged or cannot be read.
    #[error(
        "{0} cannot be used as a time zone: {1}; correct it, or install tzdata again, or use --utc"
    )]
    Unusable(String, String),
    /// The machine has no zone files.
    #[error(
        "no time zones are installed, so times are in UTC, although {0} names another zone: install tzdata, or \
         set TZ to a POSIX string such as CET-1CEST,M3.5.0,M10.5.0/3, or use --utc"
    )]
    NoZones(String),
}

impl ZoneError {
    /// Whether the value of `TZ` is wrong, rather than the machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Unusable(what, _) => what.starts_with("TZ="),
            Self::NoZones(_) => false,
        }
    }
}

/// Checks that chrono can use the zone. UTC needs no check.
pub fn check(zone: Zone) -> Result<(), ZoneError> {
    if zone == Zone::Utc {
        return Ok(());
    }
    check_tz(env::var_os("TZ").as_deref(), Path::new("/"))
}

/// `tz` is the value of `TZ`, and `root` the machine's root directory.
fn check_tz(tz: Option<&OsStr>, root: &Path) -> Result<(), ZoneError> {
    let Some(tz) = tz else {
        return check_localtime(root);
    };
    let Some(text) = tz.to_str() else {
        return Err(ZoneError::Unknown(tz.to_string_lossy().into_owned()));
    };
    match text {
        // It means UTC.
        "" => return Ok(()),
        "localtime" => return check_localtime(root),
        _ => {}
    }
    let name = text.strip_prefix(':').unwrap_or(text);
    if let Some(found) = find(name, root) {
        return read_zone(&found)
            .map_err(|error| ZoneError::Unusable(format!("TZ={text:?}"), error));
    }
    // If no zone has this name, chrono reads it as a POSIX string.
    if name == text && TimeZone::from_posix_tz(text).is_ok() {
        return Ok(());
    }
    Err(if are_installed(root) || name.starts_with('/') {
        ZoneError::Unknown(text.to_owned())
    } else {
        ZoneError::NoZones(format!("TZ={text:?}"))
    })
}

fn are_installed(root: &Path) -> bool {
    DIRECTORIES.iter().any(|it| below(root, it).is_dir())
}

fn check_localtime(root: &Path) -> Result<(), ZoneError> {
    let path = below(root, LOCALTIME);
    if fs::symlink_metadata(&path).is_err() {
        // Without this file, the machine's zone is UTC.
        return Ok(());
    }
    let Err(error) = read_zone(&path) else {
        return Ok(());
    };
    let target = fs::read_link(&path).map(|target| format!(" (a link to {})", target.display()));
    let what = format!("{LOCALTIME}{}", target.unwrap_or_default());
    Err(if are_installed(root) || path.exists() {
        ZoneError::Unusable(what, format!("{error}; times are in UTC"))
    } else {
        ZoneError::NoZones(what)
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

fn read_zone(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    TimeZone::from_tz_data(&bytes).map_err(|error| format!("it is damaged ({error})"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const ZONES: &str = "usr/share/zoneinfo";

    /// The root directory of a machine whose zone is Test/Tokyo. If `!has_zones`, this file is missing.
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

    fn check(tz: Option<&str>, root: &TempDir) -> Result<(), ZoneError> {
        check_tz(tz.map(OsStr::new), root.path())
    }

    #[test]
    fn zones_and_posix_strings_are_accepted() {
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
            assert_eq!(check(tz, &root), Ok(()), "{tz:?}");
        }
    }

    #[test]
    fn an_unknown_or_damaged_zone_is_rejected() {
        let root = machine(true);
        for tz in [
            "Europe/Berln",
            ":Europe/Berln",
            ":",
            "/usr/share/zoneinfo/Europe/Berln",
            "CET-1CEST,M3.5.0",
            ":CET-1CEST,M3.5.0,M10.5.0/3",
        ] {
            assert_eq!(check(Some(tz), &root), Err(ZoneError::Unknown(tz.into())));
        }
        let not_unicode = OsStr::from_bytes(b"Test/\xff");
        let error = check_tz(Some(not_unicode), root.path()).unwrap_err();
        assert!(error.is_usage());
        for tz in ["Test", "Test/Damaged"] {
            let error = check(Some(tz), &root).unwrap_err();
            assert!(error.is_usage(), "{error}");
            let text = error.to_string();
            assert!(text.contains(tz) && text.contains("--utc"), "{text}");
        }
    }

    #[test]
    fn a_machine_without_zone_files_is_an_error_with_the_cure() {
        let root = machine(false);
        for (tz, what) in [
            (None, "/etc/localtime (a link to ../usr/share"),
            (Some("Test/Tokyo"), "TZ=\"Test/Tokyo\" names"),
        ] {
            let error = check(tz, &root).unwrap_err();
            assert!(!error.is_usage());
            let text = error.to_string();
            assert!(
                text.contains(what) && text.contains("install tzdata"),
                "{text}"
            );
        }
        assert_eq!(check(Some("CET-1CEST,M3.5.0,M10.5.0/3"), &root), Ok(()));
        fs::remove_file(root.path().join("etc/localtime")).unwrap();
        assert_eq!(check(None, &root), Ok(()), "it is UTC then");
    }

    #[test]
    fn a_dangling_link_of_the_machine_is_an_error() {
        let root = machine(true);
        fs::remove_file(root.path().join(ZONES).join("Test/Tokyo")).unwrap();
        let error = check(None, &root).unwrap_err();
        assert!(!error.is_usage());
        let text = error.to_string();
        assert!(text.contains("times are in UTC"), "{text}");
    }
}
