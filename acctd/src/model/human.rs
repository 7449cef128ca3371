//! Numbers in log lines and reports.

/// With commas between thousands: `12,004`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a decimal unit: `999 bytes`, `1.2 MB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1_000 {
        return format!("{number} bytes");
    }
    // In tenths of the unit, rounded down.
    let mut tenths = number / 100;
    let mut unit = 0;
    while tenths >= 10_000 {
        tenths /= 1_000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A rate, to whole numbers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are at least 0 and far below 2^64"
)]
pub(crate) fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

/// Three or four digits with a unit: `1.23 GB`, `412.3 Mbit/s`.
pub(crate) fn scaled(number: u64, is_iec: bool, unit: &str) -> String {
    let scale = Scale::of(number, is_iec);
    format!(
        "{} {}{unit}",
        scale.text(number, scale.decimals),
        scale.prefix
    )
}

/// A unit in which a number has one to three digits before the point.
pub(crate) struct Scale {
    divisor: f64,
    pub(crate) prefix: &'static str,
    /// For three digits in all, or four.
    pub(crate) decimals: usize,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    pub(crate) fn of(number: u64, is_iec: bool) -> Self {
        let (step, prefixes) = if is_iec {
            (1_024.0, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
        } else {
            (1_000.0, ["", "k", "M", "G", "T", "P", "E"])
        };
        let mut divisor = 1.0;
        let mut at = 0;
        while number as f64 / divisor >= step && at + 1 < prefixes.len() {
            divisor *= step;
            at += 1;
        }
        let decimals = match at {
            0 => 0,
            _ if (number as f64 / divisor) < 10.0 => 2,
            _ => 1,
        };
        Self {
            divisor,
            prefix: prefixes[at],
            decimals,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "few digits are shown")]
    pub(crate) fn text(&self, number: u64, decimals: usize) -> String {
        format!("{:.decimals$}", number as f64 / self.divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_commas() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(12_004), "12,004");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(999_999), "999.9 kB");
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }
}
