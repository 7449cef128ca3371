//! uacctd, pmacct's collector for NFLOG, set up as its documentation advises for many packets.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;
use rustix::process::Signal;

use crate::{
    receiver::{Counted, Place, Receiver, sum_of_column},
    stage::GROUP,
};

pub(crate) struct Uacctd {
    pub(crate) program: PathBuf,
}

impl Receiver for Uacctd {
    fn name(&self) -> &'static str {
        "uacctd"
    }

    fn command(&self, place: &Place<'_>) -> Result<Option<Command>> {
        let file = place.directory.join("uacctd.conf");
        let directory = place.directory.display();
        // The socket's buffer is ten times uacctd_nl_size. The kernel takes 131072 at the most, with which
        // half of the packets were lost at a threshold of 5000; of more it makes batches of a page, and
        // none is lost. The mask is for IPv6: what is longer than an IPv4 address is not cut. The cache
        // has to hold all prefixes, and is best at about ten a bucket.
        fs::write(
            &file,
            format!(
                "daemonize: false\n\
                 uacctd_group: {GROUP}\n\
                 uacctd_nl_size: 4194304\n\
                 uacctd_threshold: {}\n\
                 snaplen: 128\n\
                 aggregate: src_net,src_mask\n\
                 networks_mask: 64\n\
                 plugins: print[p]\n\
                 plugin_pipe_size[p]: 268435456\n\
                 plugin_buffer_size[p]: 262144\n\
                 print_output[p]: csv\n\
                 print_output_file[p]: {directory}/out.csv\n\
                 print_output_file_append[p]: true\n\
                 print_refresh_time[p]: 86400\n\
                 print_cache_entries[p]: {}\n",
                place.setup.threshold,
                if place.setup.prefixes.count > 100_000 {
                    131_071
                } else {
                    16_411
                },
            ),
        )?;
        let mut command = place.stage.receiver(&self.program);
        command.arg("-f").arg(file);
        Ok(Some(command))
    }

    /// SIGTERM takes effect with the next packet only.
    fn stop_signal(&self) -> Signal {
        Signal::INT
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        Ok(Counted::packets(sum_of_column(place.directory, "PACKETS")?))
    }
}
