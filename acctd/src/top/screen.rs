//! What is on the terminal, and what keys do to it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use anyhow::Result;
use clap::ValueEnum as _;
use ipnet::IpNet;
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::head;
use super::table::{Unit, packets, sparkline};
use crate::cli::asked::Prefix;
use crate::cli::top::Order;
use crate::model::human::{rounded, thousands};
use crate::observe::live::Live;
use crate::sampling::heaviest::{Query, Rates};

/// How many answers a sparkline has: a minute, if one comes each second.
const HISTORY: usize = 60;
/// The narrowest and the widest sparkline.
const SPARKLINE: [u16; 2] = [10, 60];

/// What the program does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    End,
}

#[derive(Debug)]
pub(super) struct Screen {
    query: Query,
    live: Live,
    /// The last answers' bytes per second, in and out together; of prefixes that were among them.
    history: HashMap<IpAddr, VecDeque<f64>>,
    all: VecDeque<f64>,
    /// Why there was no answer, if so.
    error: Option<String>,
    unit: Unit,
    is_frozen: bool,
    /// The first prefix that is shown.
    offset: usize,
    /// The filter while it is typed, and what is wrong with it.
    typed: Option<(String, Option<String>)>,
}

impl Screen {
    pub(super) fn new(query: Query, first: Live) -> Self {
        let mut screen = Self {
            query,
            live: first.clone(),
            history: HashMap::new(),
            all: VecDeque::new(),
            error: None,
            unit: Unit::Bits,
            is_frozen: false,
            offset: 0,
            typed: None,
        };
        screen.answered(Ok(first));
        screen
    }

    /// What to ask; nothing while it is frozen.
    pub(super) fn query(&self) -> Option<Query> {
        (!self.is_frozen).then_some(self.query)
    }

    pub(super) fn answered(&mut self, answer: Result<Live>) {
        let live = match answer {
            Ok(live) => live,
            Err(error) => {
                self.error = Some(format!("{error:#}"));
                return;
            }
        };
        self.error = None;
        if self.is_frozen {
            return;
        }
        let sum = |rates: &Rates| rates.in_bytes_per_second + rates.out_bytes_per_second;
        let mut now: HashMap<IpAddr, f64> = HashMap::new();
        for prefix in &live.heaviest.prefixes {
            now.insert(prefix.ip, sum(&prefix.rates));
            self.history.entry(prefix.ip).or_default();
        }
        self.history.retain(|address, history| {
            push(history, now.get(address).copied().unwrap_or(0.0));
            history.iter().any(|value| *value > 0.0)
        });
        push(&mut self.all, sum(&live.heaviest.all));
        self.live = live;
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::End;
        }
        if self.typed.is_some() {
            self.type_filter(key.code);
            return Next::GoOn;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::End,
            KeyCode::Char('s') => {
                let all = Order::value_variants();
                let at = all.iter().position(|it| *it == self.query.order);
                self.query.order = all[(at.unwrap_or(0) + 1) % all.len()];
                self.offset = 0;
            }
            KeyCode::Char('u') => {
                self.unit = match self.unit {
                    Unit::Bits => Unit::Bytes,
                    Unit::Bytes => Unit::Bits,
                }
            }
            KeyCode::Char(' ') => self.is_frozen = !self.is_frozen,
            KeyCode::Char('/') => {
                let filter = self.query.filter.as_ref().map(IpNet::to_string);
                self.typed = Some((filter.unwrap_or_default(), None));
            }
            KeyCode::Down => self.offset += 1,
            KeyCode::Up => self.offset = self.offset.saturating_sub(1),
            KeyCode::PageDown => self.offset += 10,
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(10),
            KeyCode::Home => self.offset = 0,
            _ => {}
        }
        Next::GoOn
    }

    fn type_filter(&mut self, key: KeyCode) {
        let Some((text, wrong)) = &mut self.typed else {
            return;
        };
        *wrong = None;
        match key {
            KeyCode::Char(letter) => text.push(letter),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Esc => self.typed = None,
            KeyCode::Enter if text.trim().is_empty() => {
                self.query.filter = None;
                self.typed = None;
            }
            KeyCode::Enter => match text.trim().parse::<Prefix>() {
                Ok(prefix) => {
                    self.query.filter = Some(prefix.0);
                    self.offset = 0;
                    self.typed = None;
                }
                Err(error) => *wrong = Some(error),
            },
            _ => {}
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let problems = self.problems();
        let n_problems = u16::try_from(problems.len()).unwrap_or(u16::MAX).min(3);
        let lines = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(n_problems),
            Constraint::Min(3),
            Constraint::Length(1),
        ]);
        let [top, middle, rows, bottom] = lines.areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(top.width)), top);
        let red = Style::new().fg(Color::Red);
        frame.render_widget(Paragraph::new(problems).style(red), middle);
        frame.render_widget(self.table(rows.width, rows.height), rows);
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(self.foot()).style(reversed), bottom);
    }

    fn problems(&self) -> Vec<Line<'static>> {
        let error = self.error.iter();
        let problems = error.chain(self.live.status.problems());
        problems.map(|text| Line::from(text.clone())).collect()
    }

    fn head(&self, width: u16) -> Vec<Line<'static>> {
        let all = &self.live.heaviest.all;
        let left = format!(
            "acctd {}  in {}  out {}  {} packets/s",
            self.live.status.version(),
            self.unit.rate(all.in_bytes_per_second),
            self.unit.rate(all.out_bytes_per_second),
            thousands(rounded(packets(all)))
        );
        let free = usize::from(width).saturating_sub(left.chars().count() + 2);
        let all: Vec<f64> = self.all.iter().copied().collect();
        let line = sparkline(&all, free.min(HISTORY));
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let counts = Line::from(head::counts(&self.live));
        let color = if head::is_bad(&self.live) {
            Color::Yellow
        } else {
            Color::Green
        };
        vec![
            Line::styled(format!("{left}  {line}"), bold),
            counts.style(Style::new().fg(color)),
        ]
    }

    fn table(&mut self, width: u16, height: u16) -> Table<'static> {
        const COLUMNS: [u16; 4] = [20, 12, 12, 10];
        let prefixes = &self.live.heaviest.prefixes;
        let n_shown = usize::from(height.saturating_sub(1));
        self.offset = self.offset.min(prefixes.len().saturating_sub(n_shown));
        let texts = prefixes.iter().map(|it| it.ip.to_string().len());
        let longest = u16::try_from(texts.max().unwrap_or(0)).unwrap_or(u16::MAX);
        let address = longest.max(COLUMNS[0]);
        let others = COLUMNS[1..].iter().sum::<u16>() + 4;
        let free = width.saturating_sub(address + others);
        let bars = free.clamp(SPARKLINE[0], SPARKLINE[1]);
        let rows = prefixes
            .iter()
            .skip(self.offset)
            .take(n_shown)
            .map(|prefix| {
                let history: Vec<f64> = self
                    .history
                    .get(&prefix.ip)
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect();
                Row::new([
                    Cell::new(prefix.ip.to_string()),
                    right(self.unit.rate(prefix.rates.in_bytes_per_second)),
                    right(self.unit.rate(prefix.rates.out_bytes_per_second)),
                    right(thousands(rounded(packets(&prefix.rates)))),
                    Cell::new(sparkline(&history, usize::from(bars)))
                        .style(Style::new().fg(Color::Cyan)),
                ])
            });
        let sorted = |order: Order, name: &str| {
            if self.query.order == order {
                format!("{name}▼")
            } else {
                name.to_owned()
            }
        };
        let address_head = sorted(Order::Bytes, "IP");
        let header = Row::new([
            Cell::new(address_head),
            right(sorted(Order::In, "in")),
            right(sorted(Order::Out, "out")),
            right(sorted(Order::Packets, "packets/s")),
            right("last minute".to_owned()),
        ]);
        let rows: Vec<Row<'static>> = rows.collect();
        let widths = [address, COLUMNS[1], COLUMNS[2], COLUMNS[3], bars].map(Constraint::Length);
        Table::new(rows, widths)
            .header(header.style(Style::new().add_modifier(Modifier::UNDERLINED)))
            .column_spacing(1)
    }

    fn foot(&self) -> String {
        if let Some((text, wrong)) = &self.typed {
            let wrong = wrong
                .as_ref()
                .map_or_else(String::new, |it| format!("   {it}"));
            return format!("prefix (none: all): {text}_{wrong}");
        }
        let mut foot = "q end  s sort  / filter  u units  space freeze".to_owned();
        if let Some(filter) = self.query.filter {
            foot = format!("{foot}  | {filter}");
        }
        if self.is_frozen {
            foot.push_str("  | frozen");
        }
        foot
    }
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).right_aligned())
}

fn push(history: &mut VecDeque<f64>, value: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    const QUERY: Query = Query {
        n: 200,
        order: Order::Bytes,
        filter: None,
    };

    fn live(prefixes: &[(&str, f64)]) -> Live {
        let prefixes = prefixes.iter().map(|(ip, rate)| {
            json!({
                "ip": ip, "in_bytes_per_second": rate, "out_bytes_per_second": 125.0, "in_packets_per_second": 12.0,
                "out_packets_per_second": 1.0, "in_bytes": 1, "out_bytes": 1,
            })
        });
        let prefixes: Vec<_> = prefixes.collect();
        let span = json!({"start": "2026-11-28T12:00:00Z", "end": "2026-11-28T12:05:00Z"});
        let counts = crate::model::counts::Counts {
            lost: 3,
            ..Default::default()
        };
        let mut group = serde_json::to_value(counts).unwrap();
        let more = json!({
            "group": 4, "ip_version": 4, "side": "dest", "prefix_length": 32, "bound": true,
            "packets_per_second": 0.0, "bytes_per_second": 0.0, "undecodable": 0,
        });
        group
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = json!({
            "status": {
                "version": "0.1.0", "pid": 1, "started": "2026-11-28T12:00:00Z", "uptime_seconds": 1, "problems": ["group 5 is not bound"],
                "interval_seconds": 300, "open_interval": span, "groups": [group],
                "files": {"written": 0, "last": null, "waiting_intervals": 0, "waiting_rows": 0, "waiting_lines": 0, "error": null},
                "checkpoint": {"every_seconds": 0.0, "last": null, "age_seconds": null, "error": null},
                "crosscheck": {"interfaces": ["eth0:far"], "active": true, "total": {}, "last": {"match": 1204, "uncovered": 2}},
            },
            "seconds": 1.0,
            "all": {"in_bytes_per_second": 125_000_000.0, "out_bytes_per_second": 0.0, "in_packets_per_second": 93_200.0, "out_packets_per_second": 0.0},
            "prefixes": prefixes,
            "intervals": [],
        });
        serde_json::from_value(answer).unwrap()
    }

    /// The lines of a terminal of 80 columns and 24 rows.
    fn drawn(screen: &mut Screen) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let text = terminal.backend().to_string();
        let lines = text
            .lines()
            .map(|line| line.trim_matches('"').trim_end().to_owned());
        lines.collect()
    }

    fn press(screen: &mut Screen, keys: &str) {
        for letter in keys.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                letter => KeyCode::Char(letter),
            };
            assert_eq!(screen.key(code.into()), Next::GoOn);
        }
    }

    #[test]
    fn all_of_it_is_on_a_small_terminal() {
        let mut screen = Screen::new(
            QUERY,
            live(&[("2001:db8:1234:5678::", 1_250_000.0), ("10.0.0.1", 125.0)]),
        );
        screen.answered(Ok(live(&[("10.0.0.1", 250.0)])));
        let lines = drawn(&mut screen);
        assert!(
            lines[0].starts_with("acctd 0.1.0  in 1.00 Gbit/s  out 0 bit/s  93,200 packets/s"),
            "{lines:#?}"
        );
        assert_eq!(
            lines[1],
            "lost 3, undecodable 0; last file: 1,204 match 2 uncovered"
        );
        assert_eq!(lines[2], "group 5 is not bound");
        assert!(lines[3].starts_with("IP▼"), "{lines:#?}");
        assert!(
            lines[4].starts_with("10.0.0.1              2.00 kbit/s  1.00 kbit/s         13"),
            "{lines:#?}"
        );
        assert!(lines[4].ends_with("▆█"), "{lines:#?}");
        assert_eq!(lines[23], "q end  s sort  / filter  u units  space freeze");
    }

    #[test]
    fn keys_sort_filter_freeze_and_change_units() {
        let mut screen = Screen::new(QUERY, live(&[("10.0.0.1", 125.0)]));
        press(&mut screen, "su");
        assert_eq!(screen.query().unwrap().order, Order::In);
        assert!(drawn(&mut screen)[4].contains("125 B/s"));
        press(&mut screen, "/10.0.0.0/33\n");
        assert!(drawn(&mut screen)[23].contains("must be an address or a prefix"));
        screen.key(KeyCode::Backspace.into());
        screen.key(KeyCode::Backspace.into());
        press(&mut screen, "8\n");
        let filter = screen.query().unwrap().filter.unwrap();
        assert_eq!(filter.to_string(), "10.0.0.0/8");
        press(&mut screen, " ");
        assert_eq!(screen.query(), None);
        screen.answered(Ok(live(&[])));
        let lines = drawn(&mut screen);
        assert!(lines[4].starts_with("10.0.0.1"), "{lines:#?}");
        assert!(lines[23].ends_with("| 10.0.0.0/8  | frozen"), "{lines:#?}");
        screen.answered(Err(anyhow::anyhow!("cannot ask it")));
        assert_eq!(drawn(&mut screen)[2], "cannot ask it");
        assert_eq!(screen.key(KeyCode::Char('q').into()), Next::End);
    }
}
