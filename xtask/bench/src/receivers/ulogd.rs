//! ulogd2, which does not account: it writes a line for each packet.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    receiver::{Counted, Place, Receiver},
    setup::{Family, Setup},
    stage::GROUP,
};

pub(crate) struct Ulogd {
    pub(crate) program: PathBuf,
}

impl Receiver for Ulogd {
    fn name(&self) -> &'static str {
        "ulogd2"
    }

    /// It wants the UDP header as well.
    fn statement(&self, setup: &Setup) -> String {
        let snaplen = match setup.family {
            Family::Ip4 => 28,
            Family::Ip6 => 48,
        };
        format!(
            "log group {GROUP} snaplen {snaplen} queue-threshold {}",
            setup.threshold
        )
    }

    fn command(&self, place: &Place<'_>) -> Result<Option<Command>> {
        let file = place.directory.join("ulogd.conf");
        let directory = place.directory.display();
        let plugins = plugin_directory()?;
        let plugins: String = [
            "inppkt_NFLOG",
            "raw2packet_BASE",
            "filter_IFINDEX",
            "filter_IP2STR",
            "filter_PRINTPKT",
            "output_LOGEMU",
        ]
        .map(|name| format!("plugin=\"{}/ulogd_{name}.so\"\n", plugins.display()))
        .concat();
        fs::write(
            &file,
            format!(
                "[global]\n\
                 logfile=\"{directory}/ulogd.log\"\n\
                 loglevel=3\n\
                 {plugins}\
                 stack=n1:NFLOG,b1:BASE,i1:IFINDEX,s1:IP2STR,p1:PRINTPKT,o1:LOGEMU\n\
                 [n1]\n\
                 group={GROUP}\n\
                 bufsize=131072\n\
                 netlink_socket_buffer_size=536870912\n\
                 netlink_socket_buffer_maxsize=1073741824\n\
                 netlink_qthreshold={}\n\
                 netlink_qtimeout=100\n\
                 bind=0\n\
                 seq_local=1\n\
                 [o1]\n\
                 file=\"{directory}/packets\"\n\
                 sync=0\n",
                place.setup.threshold
            ),
        )?;
        let mut command = place.stage.receiver(&self.program);
        command.arg("-v").arg("-c").arg(file);
        Ok(Some(command))
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        let file = File::open(place.directory.join("packets"))?;
        let mut packets = 0;
        for line in BufReader::new(file).split(b'\n') {
            line?;
            packets += 1;
        }
        Ok(Counted::packets(packets))
    }
}

/// Debian has its plugins below the directory of the architecture, others do not.
fn plugin_directory() -> Result<PathBuf> {
    let libraries = [Path::new("/usr/lib"), Path::new("/usr/lib64")];
    let below = libraries
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    below
        .chain(libraries.map(Path::to_path_buf))
        .map(|directory| directory.join("ulogd"))
        .find(|directory| directory.is_dir())
        .context("the plugins of ulogd2 are not found")
}
