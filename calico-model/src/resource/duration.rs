//! Durations as Calico's resources write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::net::ParseError;

/// A duration such as `1m30s` or `50ms`: numbers, with an optional fraction, of `ms`, `s`, `m` and `h`.
///
/// It keeps the text that it was written with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration {
    text: Box<str>,
    length: Duration,
}

impl GoDuration {
    /// Returns how long it is.
    #[must_use]
    pub fn get(&self) -> Duration {
        self.length
    }
}

impl FromStr for GoDuration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault = || ParseError::new(text, "a duration such as 1m30s: numbers of ms, s, m or h");
        let mut length = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
            let (number, after) = rest.split_at(digits);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
                return Err(fault());
            }
            let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
            let (unit, seconds) =
                units.into_iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(fault)?;
            let number: f64 = number.parse().map_err(|_| fault())?;
            let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| fault())?;
            length = length.checked_add(part).ok_or_else(fault)?;
            rest = &after[unit.len()..];
        }
        Ok(Self { text: text.into(), length })
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

crate::wire::wire_text!(GoDuration as "0s" = "^([0-9]+([.][0-9]+)?(ms|s|m|h))*$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_parts_and_keep_their_text() {
        let read = |text: &str| text.parse::<GoDuration>().map(|duration| duration.get());
        assert_eq!(read("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(read("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(read(""), Ok(Duration::ZERO));
        assert_eq!("24h0m0s".parse::<GoDuration>().unwrap().to_string(), "24h0m0s");
        for bad in ["1", "s", "1d", "-1s", "1..5s", "1e3s", "99999999999999999999h"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
