//! What a leader still takes while its disk is nearly full.
//!
//! Whoever is short of room must be able to make some, and that takes small writes too: an object that is to be deleted is marked first,
//! and its pods report that they are gone. So what exists may change a little, and may go; nothing new comes, and nothing grows.
//!
//! Invariant: what is refused here was not proposed.

use std::io;

use bytes::Bytes;
use quorate_proto::{
    branch::{Branch, Operation},
    key::Key,
    txn::{Command, Txn, Write},
};

use super::Inner;
use crate::{columns::Column, engine::look, machine::Current, record, space::Room};

/// A document may grow by so many bytes while room is low: a mark that it is to be deleted, a status.
const GROWTH: usize = 1024;

impl Inner {
    /// How much room the disk has.
    pub(crate) fn room(&self) -> Room {
        *self.room.borrow()
    }

    /// How many bytes are free, if this node leads and those are too few for a command.
    pub(super) fn no_room_for(&self, command: &Bytes) -> Option<u64> {
        let room = self.room();
        let free = room.short().filter(|_| self.is_leader())?;
        let puts = match record::command(command) {
            Ok(Command::Apply { txn, .. }) => puts(&txn),
            Ok(Command::Branch { branch, .. }) => branch_puts(&branch),
            Ok(Command::Grant { .. }) => return Some(free),
            // These make room; and what cannot be read here is refused by whoever knows why.
            Ok(Command::Compact { .. } | Command::Revoke { .. }) | Err(_) => return None,
        };
        let size = |key: &Key| {
            let row = look(&*self.engine, |view| view.get(Column::Current, key.as_str().as_bytes()))?;
            row.map(|row| record::decode::<Current>(&row).map(|row| row.value.len())).transpose()
        };
        match takes(room, &puts, size) {
            Ok(true) => None,
            // A store that cannot be read has a fault, and says so elsewhere.
            Ok(false) | Err(_) => Some(free),
        }
    }
}

/// The keys a transaction puts, and the sizes of their documents.
fn puts(txn: &Txn) -> Vec<(Key, usize)> {
    let put = |write: &Write| match write {
        Write::Put(key, document) => Some((key.clone(), document.0.len())),
        Write::Delete(_) => None,
    };
    txn.writes.iter().filter_map(put).collect()
}

/// The same of one that chooses, whatever it chooses.
fn branch_puts(branch: &Branch) -> Vec<(Key, usize)> {
    let put = |operation: &Operation| match operation {
        Operation::Put { key, document, .. } => vec![(key.clone(), document.0.len())],
        Operation::Branch(within) => branch_puts(within),
        Operation::Delete { .. } | Operation::Query(_) => Vec::new(),
    };
    branch.then.iter().chain(&branch.otherwise).flat_map(put).collect()
}

/// Whether documents may be put; `size` tells how large one is now.
fn takes(room: Room, puts: &[(Key, usize)], size: impl Fn(&Key) -> io::Result<Option<usize>>) -> io::Result<bool> {
    for (key, length) in puts {
        let fits = match room {
            Room::Enough => true,
            Room::Low { .. } => size(key)?.is_some_and(|size| *length <= size + GROWTH),
            Room::None { .. } => false,
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use quorate_proto::txn::Document;

    use super::*;

    #[test]
    fn what_is_there_may_change_a_little_and_go_but_nothing_new_comes() {
        let key = |name| Key::new("", "pods", Some("default"), name).unwrap();
        let put = |name, bytes| Txn::new().put(key(name), Document(Bytes::from(vec![b'x'; bytes])));
        let size = |known: &Key| Ok((known.name() == "web").then_some(100));
        let free = 1 << 20;
        let takes = |txn: &Txn| {
            [Room::Enough, Room::Low { free }, Room::None { free }].map(|room| takes(room, &puts(txn), size).unwrap())
        };
        assert_eq!(takes(&put("db", 1)), [true, false, false], "a new one");
        assert_eq!(takes(&put("web", 100 + GROWTH)), [true, true, false], "a change");
        assert_eq!(takes(&put("web", 101 + GROWTH)), [true, false, false], "growth");
        assert_eq!(takes(&Txn::new().delete(key("web"))), [true, true, true]);
        assert_eq!(takes(&put("web", 1).put(key("db"), Document(Bytes::new()))), [true, false, false], "as a whole");
    }
}
