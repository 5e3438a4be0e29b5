//! Seals small secrets with the cluster key before they enter the replicated store: the authority's key, token verifiers.
//!
//! Sealed bytes are `version | salt | ciphertext | tag`. Each message has a key of its own: HKDF-SHA256 of the cluster key and 32
//! random bytes; so AES-256-GCM's nonce may be zero, and no count of messages wears the key out.
//!
//! Invariant: what was sealed for one context opens for no other.

use std::fmt;

use quorate_proto::world::Random;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

const VERSION: u8 = 1;
const SALT: usize = 32;
const INFO: &[u8] = b"quorate seal v1";
/// The largest secret that is sealed, in bytes.
const MAX_SECRET: usize = 64 << 10;

/// Why bytes were not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// Beyond the limit.
    #[error("a secret of {0} bytes is beyond the limit of {MAX_SECRET}")]
    TooLarge(usize),
    /// Sealed by a version this binary does not know.
    #[error("sealed in an unknown version: this node may need an upgrade")]
    Version,
    /// Changed, sealed with another key, or for another context.
    #[error("the sealed bytes do not open: they were changed, or sealed with another key or for another purpose")]
    Broken,
}

/// The key that only members hold: 256 bits, handed over in the join answer. Overwritten when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// A new key.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        let mut key = [0; 32];
        random.fill(&mut key);
        Self(key)
    }

    /// A key that was stored.
    #[must_use]
    pub const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Its bytes: for a file that only its owner may read.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals a secret for one context: what it is and where it belongs, such as `ca-key/1`.
    ///
    /// # Errors
    /// If it is beyond 64 KiB.
    pub fn seal(&self, context: &str, secret: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealError> {
        if secret.len() > MAX_SECRET {
            return Err(SealError::TooLarge(secret.len()));
        }
        let mut salt = [0; SALT];
        random.fill(&mut salt);
        let mut body = Zeroizing::new(secret.to_vec());
        let tag = self
            .message_key(&salt)?
            .seal_in_place_separate_tag(nonce(), Aad::from(context.as_bytes()), &mut body)
            .map_err(|_| SealError::Broken)?;
        Ok([&[VERSION], salt.as_slice(), &body, tag.as_ref()].concat())
    }

    /// Opens what was sealed for the same context.
    ///
    /// # Errors
    /// If it was changed, sealed with another key, for another context or by another version.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Broken)?;
        if *version != VERSION {
            return Err(SealError::Version);
        }
        let (salt, body) = rest.split_at_checked(SALT).ok_or(SealError::Broken)?;
        if body.len() > MAX_SECRET + AES_256_GCM.tag_len() {
            return Err(SealError::TooLarge(body.len()));
        }
        let mut secret = Zeroizing::new(body.to_vec());
        let length = self
            .message_key(salt)?
            .open_in_place(nonce(), Aad::from(context.as_bytes()), &mut secret)
            .map_err(|_| SealError::Broken)?
            .len();
        secret.truncate(length);
        Ok(secret)
    }

    fn message_key(&self, salt: &[u8]) -> Result<LessSafeKey, SealError> {
        let derived = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let key = derived.expand(&[INFO], &AES_256_GCM).map_err(|_| SealError::Broken)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    }
}

impl Drop for ClusterKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// Used once per key.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Chance;

    #[test]
    fn a_sealed_secret_opens_with_its_key_and_context_only() {
        let key = ClusterKey::generate(&Chance::new(1));
        let sealed = key.seal("ca-key/1", b"the secret", &Chance::new(2)).unwrap();
        assert_eq!(key.open("ca-key/1", &sealed).unwrap().as_slice(), b"the secret");
        assert_eq!(key.open("ca-key/2", &sealed), Err(SealError::Broken));
        assert_eq!(ClusterKey::generate(&Chance::new(3)).open("ca-key/1", &sealed), Err(SealError::Broken));
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let key = ClusterKey::generate(&Chance::new(1));
        let sealed = key.seal("c", b"x", &Chance::new(2)).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("c", &changed).is_err(), "byte {at}");
            assert!(key.open("c", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_same_secret_sealed_twice_looks_different() {
        let (key, random) = (ClusterKey::generate(&Chance::new(1)), Chance::new(2));
        assert_ne!(key.seal("c", b"x", &random), key.seal("c", b"x", &random));
    }

    #[test]
    fn a_secret_beyond_the_limit_is_not_sealed() {
        let key = ClusterKey::generate(&Chance::new(1));
        let error = key.seal("c", &vec![0; MAX_SECRET + 1], &Chance::new(2)).unwrap_err();
        assert_eq!(error.to_string(), "a secret of 65537 bytes is beyond the limit of 65536");
    }
}
