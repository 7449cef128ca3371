//! What commands have in common that ask a running acctd.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::Context as _;
use ipnet::IpNet;

use crate::config::listen_address::ListenAddress;

/// The running acctd that a command asks.
#[derive(Clone, Debug, clap::Args)]
pub struct AskedArgs {
    /// Where acctd listens: the value of its flag --listen; if that is a list, the first address.
    #[arg(
        long,
        env = "ACCTD_LISTEN",
        hide_env = true,
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "unix:/run/acctd/acctd.sock"
    )]
    pub listen: Vec<ListenAddress>,
}

impl AskedArgs {
    /// Its address; an error if `--listen` is empty.
    pub(crate) fn address(&self) -> anyhow::Result<&ListenAddress> {
        let first = self.listen.first();
        first.context("no address of an acctd: give --listen")
    }
}

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub IpNet);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let prefix = address.or_else(|_| text.parse::<IpNet>());
        prefix.map(|it| Self(it.trunc())).map_err(|_neither| {
            "must be an address or a prefix: 192.0.2.7, 192.0.2.0/24, 2001:db8::/64".to_owned()
        })
    }
}
