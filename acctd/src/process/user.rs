//! Who acctd becomes where root has started it with `--user`.

use std::ffi::CString;
use std::fmt;

use rustix::process::{Gid, Uid};

/// A user of this machine, with all groups that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As it was asked for.
    pub name: String,
    /// User id.
    pub uid: Uid,
    /// Its first group.
    pub gid: Gid,
    /// All of its groups.
    pub groups: Vec<Gid>,
}

impl User {
    /// Asks the name service, as getpwnam(3) and getgrouplist(3) do.
    pub fn find(name: &str) -> Result<Self, String> {
        let unknown = || format!("there is no user {name:?} on this machine");
        let found = nix::unistd::User::from_name(name)
            .map_err(|error| format!("cannot look user {name:?} up: {}", error.desc()))?
            .ok_or_else(unknown)?;
        let c_name = CString::new(name).map_err(|_nul| unknown())?;
        let groups = nix::unistd::getgrouplist(&c_name, found.gid)
            .map_err(|error| format!("cannot look the groups of {name:?} up: {}", error.desc()))?;
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
}

impl User {
    /// Whether this process is already this user's, and can be no other's again.
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

/// Who may read accounting data: the owner and its group.
pub const FILE_MODE: u32 = 0o640;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_name_alone() {
        let root = User::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (Uid::ROOT, Gid::ROOT));
        assert!(root.groups.contains(&Gid::ROOT));
        for bad in ["no-such-user", "", "root\0", "0"] {
            assert!(User::find(bad).unwrap_err().contains("user"), "{bad:?}");
        }
    }
}
