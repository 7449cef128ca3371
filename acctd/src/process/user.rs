//! The user that acctd becomes with `--user`.

use std::ffi::CString;
use std::{fmt, fs};

use rustix::process::{Gid, Uid};

/// A user of this machine, with all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As in `--user`.
    pub name: String,
    /// The user's id.
    pub uid: Uid,
    /// The user's primary group.
    pub gid: Gid,
    /// All groups, the primary one included.
    pub groups: Vec<Gid>,
}

impl User {
    /// Asks the system's name service: getpwnam(3) and getgrouplist(3).
    pub fn find(name: &str) -> Result<Self, String> {
        let unknown = || format!("there is no user {name:?} on this machine");
        let found = nix::unistd::User::from_name(name)
            .map_err(|error| format!("cannot look up user {name:?}: {}", error.desc()))?
            .ok_or_else(unknown)?;
        let c_name = CString::new(name).map_err(|_nul| unknown())?;
        let groups = nix::unistd::getgrouplist(&c_name, found.gid).map_err(|error| {
            format!(
                "cannot look up the groups of user {name:?}: {}",
                error.desc()
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            uid: Uid::from_raw(found.uid.as_raw()),
            gid: Gid::from_raw(found.gid.as_raw()),
            groups: groups
                .into_iter()
                .map(|group| Gid::from_raw(group.as_raw()))
                .collect(),
        })
    }

    /// Whether this process runs as this user already, and cannot become another one.
    #[must_use]
    pub fn is_this_process(&self) -> bool {
        rustix::process::getuid() == self.uid && rustix::process::geteuid() == self.uid
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The owner and its group may read accounting data.
pub const FILE_MODE: u32 = 0o640;

/// Whether capabilities of this process count for what belongs to no namespace.
pub(crate) fn is_in_first_user_namespace() -> bool {
    // A line of user_namespaces(7): the first id within, the first outside, and how many.
    let is_mapped_to_itself = |map: String| {
        let numbers: Vec<&str> = map.split_whitespace().take(2).collect();
        numbers == ["0", "0"]
    };
    fs::read_to_string("/proc/self/uid_map").map_or(true, is_mapped_to_itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_name_only() {
        let root = User::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (Uid::ROOT, Gid::ROOT));
        assert!(root.groups.contains(&Gid::ROOT));
        for bad in ["no-such-user", "", "root\0", "0"] {
            assert!(User::find(bad).unwrap_err().contains("user"), "{bad:?}");
        }
    }
}
