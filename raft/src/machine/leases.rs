//! Leases in the state machine: granted, attached to, ended by commands only. Nothing here knows how long a lease has left.
//!
//! `lease` holds a row for each lease, by its number, and an empty one for each key that is attached to it, by number and key.
//!
//! Invariant: a key is attached to the lease that its present row names and to no other, and a lease counts its keys.

use std::{io, ops::ControlFlow};

use bytes::Bytes;
use quorate_proto::{
    key::Key,
    lease::{LeaseId, MAX_TTL, MIN_TTL},
    txn::{CommandOutcome, CommandRefusal},
};
use serde::{Deserialize, Serialize};

use super::{Applying, Draft, stored_key};
use crate::{columns::Column, engine::View, record};

/// A lease, in `lease`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    pub(crate) ttl_seconds: u64,
    /// The entry of the log that granted it: tells it from another that had its number before.
    pub(crate) granted: u64,
    /// How many keys are attached to it.
    pub(crate) keys: u32,
}

/// A lease was granted, or (`None`) has ended.
pub(crate) type LeaseChange = (LeaseId, Option<LeaseRow>);

impl Applying<'_> {
    /// Grants a lease.
    pub(super) fn grant(&mut self, lease: LeaseId, ttl_seconds: u64, granted: u64) -> io::Result<CommandOutcome> {
        if self.lease(lease)?.is_some() {
            return Ok(CommandOutcome::Refused(CommandRefusal::LeaseExists(lease)));
        }
        // Whoever proposes has checked it; a log that was written otherwise is still applied the same everywhere.
        let row = LeaseRow { ttl_seconds: ttl_seconds.clamp(MIN_TTL, MAX_TTL), granted, keys: 0 };
        self.leases.insert(lease, Some(row));
        self.granted.push((lease, Some(row)));
        Ok(CommandOutcome::Granted)
    }

    /// Ends a lease and deletes its keys.
    pub(super) fn revoke(&mut self, lease: LeaseId, granted: Option<u64>) -> io::Result<CommandOutcome> {
        let row = self.lease(lease)?.filter(|row| granted.is_none_or(|granted| granted == row.granted));
        if row.is_none() {
            return Ok(CommandOutcome::Refused(CommandRefusal::NoSuchLease(lease)));
        }
        let mut keys = attached(self.view, lease)?;
        keys.retain(|key| self.attached.get(&(lease, key.clone())) != Some(&false));
        for ((_, key), _) in self.attached.iter().filter(|((of, _), attached)| *of == lease && **attached) {
            keys.push(key.clone());
        }
        keys.sort();
        keys.dedup();
        let mut draft = Draft::new(self.next_revision());
        for key in &keys {
            draft.delete(self, key)?;
        }
        let revision = self.commit(draft)?;
        self.leases.insert(lease, None);
        self.granted.push((lease, None));
        Ok(CommandOutcome::Revoked(revision))
    }

    /// A key leaves one lease for another.
    pub(super) fn attach(&mut self, key: &Key, from: Option<LeaseId>, to: Option<LeaseId>) -> io::Result<()> {
        if from == to {
            return Ok(());
        }
        for (lease, attached) in from.map(|lease| (lease, false)).into_iter().chain(to.map(|lease| (lease, true))) {
            if let Some(mut row) = self.lease(lease)? {
                row.keys = if attached { row.keys.saturating_add(1) } else { row.keys.saturating_sub(1) };
                self.leases.insert(lease, Some(row));
            }
            self.attached.insert((lease, key.clone()), attached);
        }
        Ok(())
    }

    pub(super) fn lease(&self, lease: LeaseId) -> io::Result<Option<LeaseRow>> {
        match self.leases.get(&lease) {
            Some(row) => Ok(*row),
            None => {
                let row = self.view.get(Column::Lease, &lease_key(lease))?;
                row.map(|row| record::decode(&row)).transpose()
            }
        }
    }

    /// Adds what became of leases to the batch.
    pub(super) fn store_leases(&mut self) -> io::Result<()> {
        for (lease, row) in std::mem::take(&mut self.leases) {
            match row {
                Some(row) => self.batch.put(Column::Lease, lease_key(lease), record::encode(&row)?),
                None => self.batch.delete(Column::Lease, lease_key(lease)),
            }
        }
        for ((lease, key), attached) in std::mem::take(&mut self.attached) {
            match attached {
                true => self.batch.put(Column::Lease, attached_key(lease, &key), Bytes::new()),
                false => self.batch.delete(Column::Lease, attached_key(lease, &key)),
            }
        }
        Ok(())
    }
}

/// All leases, by number.
pub(crate) fn leases(view: &dyn View) -> io::Result<Vec<(LeaseId, LeaseRow)>> {
    let mut found = Vec::new();
    view.scan(Column::Lease, &[], None, &mut |key, row| {
        if let Ok(number) = <[u8; 8]>::try_from(key) {
            let lease = LeaseId::new(u64::from_be_bytes(number));
            let lease = lease.ok_or_else(|| record::damaged("a lease without a number".to_owned()))?;
            found.push((lease, record::decode(row)?));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The keys that are attached to a lease, in order.
pub(crate) fn attached(view: &dyn View, lease: LeaseId) -> io::Result<Vec<Key>> {
    let mut from = lease_key(lease);
    let end = crate::columns::end_of(&from);
    // The lease's own row comes first.
    from.push(0);
    let mut keys = Vec::new();
    view.scan(Column::Lease, &from, end.as_deref(), &mut |key, _| {
        keys.push(stored_key(key.get(8..).unwrap_or_default())?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

fn lease_key(lease: LeaseId) -> Vec<u8> {
    lease.0.get().to_be_bytes().to_vec()
}

fn attached_key(lease: LeaseId, key: &Key) -> Vec<u8> {
    let mut bytes = lease_key(lease);
    bytes.extend(key.as_str().as_bytes());
    bytes
}
