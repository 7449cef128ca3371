//! Converts flags and values from Go's spelling, which go-nflog-acctd uses, to clap's:
//! <https://pkg.go.dev/flag#hdr-Command_line_flag_syntax>, <https://pkg.go.dev/time#ParseDuration>.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use thiserror::Error;

/// Adds the second dash to each long flag that has one dash. Does not change values, even if they begin
/// with a dash (`-priority -19`), arguments after `--`, and flags of a single letter. `takes_value` says
/// whether the next argument is the value of the flag with this name.
pub fn to_clap(
    args: impl IntoIterator<Item = OsString>,
    takes_value: impl Fn(&[u8]) -> bool,
) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut clap_args: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let Some(name) = flag_name(&arg) else {
            clap_args.push(arg);
            continue;
        };
        if name.is_empty() {
            // `--` ends the flags.
            clap_args.push(arg);
            clap_args.extend(args);
            break;
        }
        let needs_value = !name.contains(&b'=') && takes_value(name);
        clap_args.push(if name.len() > 1 {
            let mut dashed = b"--".to_vec();
            dashed.extend_from_slice(name);
            OsString::from_vec(dashed)
        } else {
            arg.clone()
        });
        if needs_value {
            clap_args.extend(args.next());
        }
    }
    clap_args
}

/// What follows the one or two dashes; `None` if the argument is not a flag (`-` alone is not).
fn flag_name(arg: &OsStr) -> Option<&[u8]> {
    let bytes = arg.as_bytes();
    match bytes.strip_prefix(b"-")? {
        b"" => None,
        name => Some(name.strip_prefix(b"-").unwrap_or(name)),
    }
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Not a sequence of numbers with units.
    #[error("is not a duration: write it as 5m0s, 90s, 1h30m, 24h or 1d")]
    Syntax,
    /// A number without a unit. Go accepts only `0` without a unit.
    #[error("lacks a unit: write 300s or 5m, not 300")]
    MissingUnit,
    /// A negative sign, except before a zero.
    #[error("is negative")]
    Negative,
    /// More than 292 years, Go's limit.
    #[error("is longer than 292 years")]
    TooLong,
}

/// Go's `time.ParseDuration` (`5m0s`, `1h30m`, `1.5h`, `300ms`), and `d` for days of 24 hours.
/// Exact to the nanosecond; smaller fractions are cut off, as in Go.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let (negative, mut rest) = match unsigned.strip_prefix('-') {
        Some(rest) if unsigned.len() == text.len() => (true, rest),
        Some(_) => return Err(DurationError::Syntax),
        None => (false, unsigned),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let part;
        (part, rest) = parse_part(rest)?;
        nanos += part;
        if nanos > i64::MAX as u128 {
            return Err(DurationError::TooLong);
        }
    }
    if negative && nanos > 0 {
        return Err(DurationError::Negative);
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_too_long| DurationError::TooLong)
}

/// Splits the first number and its unit from the rest; returns nanoseconds.
fn parse_part(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = take_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => take_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax);
    }
    let unit_length = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_length);
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        "" => return Err(DurationError::MissingUnit),
        _ => return Err(DurationError::Syntax),
    };
    // 18 digits fit into u128 in any unit; more digits are too long in any unit.
    let significant = whole.trim_start_matches('0');
    if significant.len() > 18 {
        return Err(DurationError::TooLong);
    }
    let whole: u128 = significant.parse().unwrap_or(0);
    // Digits after the 18th are less than a nanosecond, even in days.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let fraction: u128 = fraction.parse().unwrap_or(0);
    Ok((whole * unit + fraction * unit / scale, rest))
}

fn take_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::commands::Cli;
    use crate::config::Config;

    fn spelled(args: &[&str]) -> Vec<String> {
        let takes_value = |name: &[u8]| matches!(name, b"interval" | b"priority");
        let args = ["acctd"].iter().chain(args).map(OsString::from);
        to_clap(args, takes_value)
            .into_iter()
            .skip(1)
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    #[test]
    fn one_dash_or_two_mean_the_same() {
        assert_eq!(spelled(&["-interval=5m"]), ["--interval=5m"]);
        assert_eq!(spelled(&["--interval=5m"]), ["--interval=5m"]);
        assert_eq!(
            spelled(&["-syslog", "-debug=false"]),
            ["--syslog", "--debug=false"]
        );
        assert_eq!(spelled(&["-h", "-V", "-"]), ["-h", "-V", "-"]);
    }

    #[test]
    fn values_are_not_changed() {
        assert_eq!(spelled(&["-priority", "-19"]), ["--priority", "-19"]);
        assert_eq!(
            spelled(&["-priority", "-nice", "-syslog"]),
            ["--priority", "-nice", "--syslog"]
        );
        assert_eq!(spelled(&["-interval"]), ["--interval"]);
        assert_eq!(spelled(&["--", "-debug"]), ["--", "-debug"]);
    }

    #[test]
    fn durations_are_read_as_in_go() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("5m0s"), Ok(300.0));
        assert_eq!(seconds("1h30m"), Ok(5_400.0));
        assert_eq!(seconds("24h"), Ok(86_400.0));
        assert_eq!(seconds("1d"), Ok(86_400.0));
        assert_eq!(seconds("1.5h"), Ok(5_400.0));
        assert_eq!(seconds(".5s"), Ok(0.5));
        assert_eq!(seconds("1500ms"), Ok(1.5));
        assert_eq!(seconds("+1s"), Ok(1.0));
        assert_eq!(seconds("0"), Ok(0.0));
        assert_eq!(seconds("-0s"), Ok(0.0));
        assert_eq!(parse_duration("1µs2ns"), Ok(Duration::from_nanos(1_002)));
    }

    #[test]
    fn an_invalid_duration_is_rejected_with_the_reason() {
        for text in ["", "-", "+", "s", "5x", ".s", "1m m", "+-1s", "-+1s", "5 m"] {
            assert_eq!(parse_duration(text), Err(DurationError::Syntax), "{text}");
        }
        assert_eq!(parse_duration("300"), Err(DurationError::MissingUnit));
        assert_eq!(parse_duration("1h30"), Err(DurationError::MissingUnit));
        assert_eq!(parse_duration("-5m"), Err(DurationError::Negative));
        assert_eq!(parse_duration("107000d"), Err(DurationError::TooLong));
        assert_eq!(
            parse_duration("99999999999999999999999999999999999999999999s"),
            Err(DurationError::TooLong)
        );
    }

    #[test]
    fn booleans_are_read_as_in_go() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Ok(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Ok(false));
        }
        assert!(parse_bool("yes").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_arguments_cause_no_panic(
            args in proptest::collection::vec(any_argument(), 0..8)
        ) {
            let args = std::iter::once(b"acctd".to_vec()).chain(args).map(OsString::from_vec);
            if let Ok(cli) = Cli::parse_args(args) {
                let _accepted_or_rejected = Config::resolve(cli.flags);
            }
        }

        #[test]
        fn only_dashes_are_added(
            args in proptest::collection::vec(any_argument(), 0..8)
        ) {
            let args: Vec<OsString> = args.into_iter().map(OsString::from_vec).collect();
            let spelled = to_clap(args.clone(), |name| name.len() % 2 == 0);
            prop_assert_eq!(spelled.len(), args.len());
            for (before, after) in args.iter().zip(&spelled) {
                let one_dash = [b"-", before.as_bytes()].concat();
                prop_assert!(before == after || after.as_bytes() == one_dash);
            }
        }

        #[test]
        fn arbitrary_durations_cause_no_panic(text in ".{0,40}") {
            let _accepted_or_rejected = parse_duration(&text);
        }

        #[test]
        fn a_duration_is_the_sum_of_its_parts(
            hours in 0_u64..1_000, minutes in 0_u64..1_000, seconds in 0_u64..1_000, millis in 0_u64..1_000
        ) {
            let text = format!("{hours}h{minutes}m{seconds}.{millis:03}s");
            let expected = Duration::from_millis(((hours * 60 + minutes) * 60 + seconds) * 1_000 + millis);
            prop_assert_eq!(parse_duration(&text), Ok(expected));
        }
    }

    /// acctd's flags, well and badly spelled, values, and noise.
    fn any_argument() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            "-{0,3}(interval|ip[46]-(src|dst)-group|priority|syslog|debug|cpus|utc|help|h|V)(=.{0,9})?"
                .prop_map(String::into_bytes),
            "-?[0-9,.hmsd-]{0,9}".prop_map(String::into_bytes),
        ]
    }
}
