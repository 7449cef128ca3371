//! Ethernet addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The address of a network device on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for MacAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets: Option<Vec<u8>> = text
            .split(':')
            .map(|octet| {
                let digits = octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
                digits.then(|| u8::from_str_radix(octet, 16).ok())?
            })
            .collect();
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no Ethernet address such as 02:00:00:00:00:01"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_address_convert_both_ways() {
        let address = MacAddr([0x02, 0, 0x0a, 0xff, 0, 0x01]);
        assert_eq!(address.to_string(), "02:00:0a:ff:00:01");
        assert_eq!("02:00:0a:FF:00:01".parse(), Ok(address));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
