//! The join token in text form: `QRT1.<kind>.<pin>.<id>.<secret>.<check>[@host:port,…]`, its parts in base32 (RFC 4648, no padding).
//!
//! The pin is the SHA-256 of the cluster CA's public key (SPKI), so that a joiner knows whom to trust; the secret is what it proves to
//! know, and is never sent; the check is a CRC-32 against typing. Addresses are hints only. The prefix lets scanners find leaked tokens.
//!
//! Invariant: neither `Debug` nor an error shows the secret; only [`Token::reveal`] does.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroize;

/// What every token begins with.
pub const PREFIX: &str = "QRT1";

/// The longest token that is read, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// The most addresses a token carries.
pub const MAX_ADDRESSES: usize = 16;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenKind {
    /// Joining as a node.
    Node,
    /// Logging in as a user.
    User,
}

impl TokenKind {
    const fn letter(self) -> char {
        match self {
            Self::Node => 'n',
            Self::User => 'u',
        }
    }
}

/// The part of a token that may be shown: 40 bits, by which the cluster finds the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 5]);

impl fmt::Display for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Ok(Self(decode("id", text)?))
    }
}

/// 128 random bits, known to whoever was given the token. Overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is good for.
    pub kind: TokenKind,
    /// SHA-256 of the cluster CA's public key (SPKI).
    pub pin: [u8; 32],
    /// Which token it is.
    pub id: TokenId,
    /// What the holder proves to know.
    pub secret: Secret,
    /// Where a member of the cluster may be, as `host:port`.
    pub addresses: Vec<String>,
}

/// Why a text is no token. No variant carries a part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It begins otherwise.
    #[error("a join token begins with `{PREFIX}.`")]
    Prefix,
    /// It is longer than any token.
    #[error("a join token has at most {MAX_LENGTH} characters, not {0}")]
    TooLong(usize),
    /// Parts are missing or too many.
    #[error("a join token has 6 parts separated by `.`, not {0}: was it copied whole?")]
    Parts(usize),
    /// It is good for nothing we know.
    #[error("a join token is of kind `n` (node) or `u` (user)")]
    Kind,
    /// A part has the wrong length or characters.
    #[error("the {0} of the join token is damaged: was it copied whole?")]
    Part(&'static str),
    /// The check does not fit the rest.
    #[error("the join token is mistyped: its check does not fit")]
    Check,
    /// All bits of the secret are zero.
    #[error("the join token has an empty secret")]
    EmptySecret,
    /// An address is not `host:port`.
    #[error("`{0}` in the join token is not an address like `10.0.0.1:7443`")]
    Address(String),
    /// More addresses than allowed.
    #[error("a join token carries at most {MAX_ADDRESSES} addresses, not {0}")]
    Addresses(usize),
}

impl Token {
    /// The whole token as text, secret included: for whoever is to join, and for nobody's log.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut text = format!(
            "{PREFIX}.{}.{}.{}.{}.{}",
            self.kind.letter(),
            encode(&self.pin),
            self.id,
            encode(&self.secret.0),
            encode(&self.check())
        );
        if !self.addresses.is_empty() {
            text.push('@');
            text.push_str(&self.addresses.join(","));
        }
        text
    }

    /// Covers what must be right for a join to succeed; a wrong address shows by itself.
    fn check(&self) -> [u8; 4] {
        let mut digest = crc32fast::Hasher::new();
        digest.update(PREFIX.as_bytes());
        digest.update(&[self.kind as u8]);
        digest.update(&self.pin);
        digest.update(&self.id.0);
        digest.update(&self.secret.0);
        digest.finalize().to_be_bytes()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(TokenError::TooLong(text.len()));
        }
        let (body, addresses) = match text.split_once('@') {
            Some((body, addresses)) => (body, addresses.split(',').collect()),
            None => (text, Vec::new()),
        };
        let parts: Vec<&str> = body.split('.').collect();
        if !parts.first().is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX)) {
            return Err(TokenError::Prefix);
        }
        let &[_, kind, pin, id, secret, check] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        let kind = match kind {
            "n" | "N" => TokenKind::Node,
            "u" | "U" => TokenKind::User,
            _ => return Err(TokenError::Kind),
        };
        if addresses.len() > MAX_ADDRESSES {
            return Err(TokenError::Addresses(addresses.len()));
        }
        let token = Self {
            kind,
            pin: decode("pin", pin)?,
            id: id.parse()?,
            secret: Secret(decode("secret", secret)?),
            addresses: addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        };
        if token.check() != decode::<4>("check", check)? {
            return Err(TokenError::Check);
        }
        if token.secret.0 == [0; 16] {
            return Err(TokenError::EmptySecret);
        }
        Ok(token)
    }
}

fn address(text: &str) -> Result<String, TokenError> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err(TokenError::Address(text.chars().take(64).collect())),
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn decode<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], TokenError> {
    BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(TokenError::Part(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            kind: TokenKind::Node,
            pin: std::array::from_fn(|index| index as u8),
            id: TokenId([1, 2, 3, 4, 5]),
            secret: Secret(*b"sixteen secrets!"),
            addresses: vec!["10.0.0.1:7443".into(), "[fd00::1]:7443".into(), "n1.example.org:7443".into()],
        }
    }

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let text = token().reveal();
        assert!(text.starts_with("QRT1.n."), "{text}");
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(
            format!("  {}\n", text.split('@').next().unwrap().to_uppercase()).parse::<Token>().unwrap().id,
            token().id
        );
    }

    #[test]
    fn a_mistyped_letter_anywhere_is_noticed() {
        let text = Token { addresses: Vec::new(), ..token() }.reveal();
        for at in PREFIX.len() + 3..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = match typed[at] {
                b'.' => continue,
                b'a' => b'b',
                _ => b'a',
            };
            let typed = String::from_utf8(typed).unwrap();
            assert!(matches!(typed.parse::<Token>(), Err(TokenError::Check | TokenError::Part(_))), "{typed}");
        }
    }

    #[test]
    fn every_damage_is_called_by_its_name() {
        let text = token().reveal();
        let parts: Vec<&str> = text.split('.').collect();
        let empty = Token { secret: Secret([0; 16]), addresses: Vec::new(), ..token() }.reveal();
        for (typed, error) in [
            ("", TokenError::Prefix),
            ("K10abc::server:def", TokenError::Prefix),
            ("QRT1.n.abc", TokenError::Parts(3)),
            (&text.replacen(".n.", ".x.", 1), TokenError::Kind),
            (&text.replacen(parts[2], "abc", 1), TokenError::Part("pin")),
            (&text.replacen(parts[3], "1!", 1), TokenError::Part("id")),
            (&text.replacen(parts[4], "", 1), TokenError::Part("secret")),
            (&text.replacen(".n.", ".u.", 1), TokenError::Check),
            (&text.replacen("10.0.0.1:7443", "10.0.0.1", 1), TokenError::Address("10.0.0.1".into())),
            (&format!("{text}{}", ",h:1".repeat(MAX_ADDRESSES)), TokenError::Addresses(MAX_ADDRESSES + 3)),
            (&"Q".repeat(MAX_LENGTH + 1), TokenError::TooLong(MAX_LENGTH + 1)),
            (&empty, TokenError::EmptySecret),
        ] {
            assert_eq!(typed.parse::<Token>(), Err(error), "{typed}");
        }
    }

    #[test]
    fn the_secret_is_in_no_debug_output() {
        let shown = format!("{:?}", token());
        assert!(!shown.contains("115") && !shown.contains(&encode(b"sixteen secrets!")), "{shown}");
    }
}
