//! `acctd ship`: the files of a host into a central database, each exactly once.
//!
//! ```text
//!  log directory ─► local (finished files, oldest first) ─► send ─► rows into `traffic`
//!                                                             ▼
//!                          compare (sums in the database = sums of the file) ─► mark in `files`
//!  once a day ─► reconcile (all files that are kept) ─► what differs is sent again
//! ```
//!
//! A row's key is host, file and address, so a row that is sent again replaces itself. A file without a mark is sent again,
//! whatever became of it before. So nothing has to be remembered, and any step may fail or be killed.

mod central;
mod follow;
mod lake;
mod local;
mod paths;
mod reconcile;
mod schema;
mod send;
mod sink;
mod state;
mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use log::warn;
use sha2::{Digest as _, Sha256};

use self::lake::{Lake, Place};
use self::send::Sender;
use self::sink::Sink;
use crate::cli::server::is_in_the_clear;
use crate::cli::ship::ShipArgs;
use crate::cli::target::Target;
use crate::client::s3::Bucket;
use crate::files::calendar::Calendar;
use crate::observe::http::Listeners;
use crate::observe::logging;

/// Sends the files of a directory, or does what else the flags say.
pub fn run(args: &ShipArgs) -> Result<ExitCode> {
    if args.schema {
        let database = match &args.to {
            Some(Target::ClickHouse(url)) => &url.database,
            Some(_) => bail!("--schema is for ClickHouse: archives need no tables"),
            None => "acctd",
        };
        let text = schema::statements(database, args.cluster.as_deref(), args.keep);
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(false, false)?;
    let host = match &args.host {
        Some(host) => host.clone(),
        None => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    };
    ensure!(
        !host.is_empty() && !host.chars().any(char::is_control),
        "{host:?} is no name of a host: see --host"
    );
    let place = match args.to.as_ref().context("no --to")? {
        Target::ClickHouse(url) => {
            warn_of_clear(&url.server);
            let calendar = Calendar::of(args.zone.as_deref())?;
            let sender = Sender::new(args, url, host, machine(), calendar)?;
            return send(sender, args);
        }
        Target::Directory(directory) => Place::Directory(directory.clone()),
        Target::Bucket { name, prefix } => {
            let endpoint = args.endpoint.as_deref();
            warn_of_clear(endpoint.unwrap_or_default());
            let bucket = Bucket::new(name, endpoint, &args.region, &args.server)?;
            Place::Bucket(Box::new(bucket), prefix.clone())
        }
    };
    send(Lake::new(&args.directory, place, host)?, args)
}

fn send(mut sink: impl Sink, args: &ShipArgs) -> Result<ExitCode> {
    if args.verify {
        return reconcile::verify(&mut sink);
    }
    let state = Arc::clone(sink.state());
    let _socket_files = Listeners::bind(&args.listen)?.serve(state)?;
    if args.once {
        return follow::once(&mut sink);
    }
    follow::follow(&mut sink, args)
}

fn warn_of_clear(server: &str) {
    if is_in_the_clear(server) {
        warn!("rows, and the password if there is one, can be read on the way: use https");
    }
}

/// Tells machines apart that use the same name. Not /etc/machine-id itself, which is confidential (machine-id(5)).
fn machine() -> String {
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    let digest = Sha256::new()
        .chain_update("acctd")
        .chain_update(id)
        .finalize();
    hex::encode(&digest[..8])
}
