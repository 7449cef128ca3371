//! A host and the wire that traffic comes from.

use anyhow::Result;

use crate::{
    netns::{Namespace, Privilege},
    programs::{bound_command, this_program},
    traffic::{Traffic, TrafficArgs},
    veth::Veth,
};

/// Two namespaces with a veth pair between them. What runs in them must be dropped before.
#[derive(Debug)]
pub struct Link {
    /// Where the rules and acctd are: the near end.
    pub host: Namespace,
    /// Where the generator is.
    pub wire: Namespace,
    pub veth: Veth,
}

impl Link {
    /// With devices of these names, on the host and on the wire.
    pub fn new(privilege: Privilege, near: &str, far: &str) -> Result<Self> {
        let host = Namespace::new(privilege)?;
        let wire = host.peer()?;
        let veth = Veth::new(&host, near, &wire, far)?;
        Ok(Self { host, wire, veth })
    }

    /// A packet from the wire to the host.
    pub fn traffic(&self, source: &str, dest: &str) -> Result<TrafficArgs> {
        Ok(TrafficArgs::new(
            &self.veth.far,
            self.veth.near_mac,
            source.parse()?,
            dest.parse()?,
        ))
    }

    /// Starts this program as the generator, on this core if one is given.
    pub fn start_sending(&self, traffic: &TrafficArgs, core: Option<usize>) -> Result<Traffic> {
        let program = this_program()?;
        let mut command = match core {
            None => bound_command(&self.wire, program),
            Some(core) => {
                let mut command = bound_command(&self.wire, "taskset");
                command.args(["-c", &core.to_string()]).arg(program);
                command
            }
        };
        traffic.ask(&mut command)?;
        Traffic::spawn(&mut command)
    }
}
