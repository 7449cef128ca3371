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
mod local;
mod paths;
mod reconcile;
mod schema;
mod send;
mod state;
mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use log::warn;
use sha2::{Digest as _, Sha256};

use crate::cli::server::ServerUrl;
use crate::cli::ship::ShipArgs;
use crate::files::calendar::Calendar;
use crate::observe::http::Listeners;
use crate::observe::logging;

/// Sends the files of a directory, or does what else the flags say.
pub fn run(args: &ShipArgs) -> Result<ExitCode> {
    if args.schema {
        let database = args.to.as_ref().map_or("acctd", |to| &to.database);
        let text = schema::statements(database, args.cluster.as_deref(), args.keep);
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(false, false)?;
    if args.to.as_ref().is_some_and(ServerUrl::is_in_the_clear) {
        warn!("rows, and the password if there is one, can be read on the way: use https");
    }
    let calendar = Calendar::of(args.zone.as_deref())?;
    let host = match &args.host {
        Some(host) => host.clone(),
        None => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    };
    let mut sender = send::Sender::new(args, host, machine(), calendar)?;
    if args.verify {
        return reconcile::verify(&mut sender);
    }
    let state = Arc::clone(sender.state());
    let _socket_files = Listeners::bind(&args.listen)?.serve(state)?;
    if args.once {
        return follow::once(&mut sender);
    }
    follow::follow(&mut sender, args)
}

/// Tells machines apart that use the same name. Not /etc/machine-id itself, which is confidential (machine-id(5)).
fn machine() -> String {
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    let digest = Sha256::new()
        .chain_update("acctd")
        .chain_update(id)
        .finalize();
    format!("{digest:x}")[..16].to_owned()
}
