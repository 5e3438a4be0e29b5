//! Identities: of a cluster, of a node, of a request.
//!
//! Each is 128 random bits, written as 32 lower-case hexadecimal digits; in JSON too, whose numbers hold no more than 64.
//!
//! Invariant: a node id is bound to its data directory and never reused (D5); an id is never derived from an address or a name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// The text was not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an id is 32 hexadecimal digits, not `{0}`")]
pub struct IdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                match u128::from_str_radix(text, 16) {
                    Ok(id) if digits => Ok(Self(id)),
                    _ => Err(IdError(text.chars().take(64).collect())),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    u128::deserialize(deserializer).map(Self)
                }
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> Self {
                Self(u128::from(id))
            }
        }
    };
}

id!(
    /// A cluster. Chosen at `quorate up`, carried in every certificate and every hello.
    ClusterId
);
id!(
    /// A node. Chosen when its data directory is made. People use its name instead (`metadata.name` of its node object).
    NodeId
);
id!(
    /// A mutating request. A retry carries the id of its first try and gets the answer to it.
    RequestId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = NodeId(0x00ff_1234_5678_9abc_def0_1234_5678_9abc);
        assert_eq!(id.to_string(), "00ff123456789abcdef0123456789abc");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn in_json_an_id_is_its_text() {
        let id = ClusterId(u128::MAX - 1);
        assert_eq!(serde_json::to_value(id).unwrap(), "fffffffffffffffffffffffffffffffe");
        assert_eq!(serde_json::from_str::<ClusterId>("\"fffffffffffffffffffffffffffffffe\"").unwrap(), id);
    }

    #[test]
    fn what_is_not_32_lower_case_digits_is_no_id() {
        for text in [
            "",
            "1",
            "+0ff123456789abcdef0123456789abc",
            "00FF123456789ABCDEF0123456789ABC",
            "00ff123456789abcdef0123456789abcd",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
