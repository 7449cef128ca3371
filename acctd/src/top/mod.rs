//! `acctd top`: the prefixes with the most traffic, as a running acctd has them now.

mod head;
mod screen;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::cli::top::TopArgs;
use crate::config::listen_address::ListenAddress;
use crate::observe::client;
use crate::observe::live::{self, DEFAULT_N, Live};
use crate::sampling::heaviest::Query;
use screen::{Next, Screen};

/// The limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a key waits for its effect, at most.
const POLL: Duration = Duration::from_millis(50);
/// The rows of a terminal that has none: enough for any.
const MOST_ROWS: usize = 200;

/// Shows them until a key ends it; with `--once`, prints them.
pub fn run(args: &TopArgs) -> Result<ExitCode> {
    let address = args.asked.address()?;
    let query = Query {
        n: args.n.map_or(DEFAULT_N, usize::from),
        order: args.sort,
        filter: args.filter.map(|prefix| prefix.0),
    };
    if args.once {
        let answer = ask(address, &query)?;
        let text = if args.json {
            answer
        } else {
            table::text(&parse(&answer, address)?)
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "the output is no terminal: use --once"
    );
    // If acctd does not answer, the error is printed, and the terminal stays as it is.
    let first = parse(&ask(address, &query)?, address)?;
    let query = Query {
        n: args.n.map_or(MOST_ROWS, usize::from),
        ..query
    };
    let asked = Arc::new(Mutex::new(Some(query)));
    let answers = start_asking(address.clone(), Arc::clone(&asked), args.every)?;
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, Screen::new(query, first), &answers, &asked);
    ratatui::restore();
    shown?;
    Ok(ExitCode::SUCCESS)
}

fn ask(address: &ListenAddress, query: &Query) -> Result<String> {
    client::ask(address, &live::path(query), None, TIMEOUT)
}

fn parse(answer: &str, address: &ListenAddress) -> Result<Live> {
    serde_json::from_str(answer)
        .with_context(|| format!("{address} is not an acctd, or has another version"))
}

/// Asks what `asked` has, every so often; nothing while it is none.
fn start_asking(
    address: ListenAddress,
    asked: Arc<Mutex<Option<Query>>>,
    every: Duration,
) -> Result<Receiver<Result<Live>>> {
    let (sender, answers) = mpsc::channel();
    let asking = thread::Builder::new().name("ask".into());
    asking.spawn(move || {
        loop {
            let started = Instant::now();
            let query = *asked.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(query) = query {
                let answer = ask(&address, &query).and_then(|answer| parse(&answer, &address));
                if sender.send(answer).is_err() {
                    return;
                }
            }
            thread::sleep(every.saturating_sub(started.elapsed()));
        }
    })?;
    Ok(answers)
}

fn show(
    terminal: &mut DefaultTerminal,
    mut screen: Screen,
    answers: &Receiver<Result<Live>>,
    asked: &Mutex<Option<Query>>,
) -> Result<()> {
    loop {
        for answer in answers.try_iter() {
            screen.answered(answer);
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if !event::poll(POLL)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && screen.key(key) == Next::End
        {
            return Ok(());
        }
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = screen.query();
    }
}
