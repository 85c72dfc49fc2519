//! What operators ask about peers, and what is kept of peers over a restart: bans and the address book.

use super::{Conn, NetThread};
use crate::base::time::Now;
use crate::net::Io;
use crate::p2p::machine::Input;
use crate::p2p::messages::PeerId;
use crate::p2p::reputation::{Ban, Subject};
use crate::rpc::node::{PeerCommand, PeerRefusal, WhichPeer};
use std::sync::Arc;

/// A book that has changed is saved this often, ms.
const BOOK_SAVED_MS: u64 = 15_000;

impl NetThread {
    /// Shows the bans to RPC and to the thread that keeps them on disk; who is banned by address is not even accepted.
    pub(super) fn show_bans(&mut self, io: &mut Io) {
        let bans: Vec<Ban> = self.machine.reputation().bans().cloned().collect();
        let ranges = bans.iter().filter_map(|ban| match ban.subject {
            Subject::Range(range) => Some(range),
            _ => None,
        });
        io.set_refused(ranges.collect());
        let new = bans.len().saturating_sub(self.out.bans.read().len());
        self.out.metrics.bans.inc_by(new as u64);
        *self.out.bans.write() = Arc::new(bans);
    }

    /// At the end: the address book as it is now, with those who are connected as the first to dial next time.
    pub fn last_book(&self) {
        let bytes = self.machine.book().save(&self.machine.anchors());
        *self.out.book.lock() = Some(bytes);
    }

    /// Gives the address book to whoever may wait for the disk, if it has changed.
    pub(super) fn save_book(&mut self, now: Now) {
        let changes = self.machine.book().changes();
        if changes != self.booked.0 && now.wall.since(self.booked.1) >= BOOK_SAVED_MS {
            self.booked = (changes, now.wall);
            let bytes = self.machine.book().save(&self.machine.anchors());
            *self.out.book.lock() = Some(bytes);
        }
    }

    /// What an operator asks.
    pub(super) fn peer_command(
        &mut self,
        io: &mut Io,
        command: PeerCommand,
    ) -> Result<(), PeerRefusal> {
        let now = self.clock.now();
        match command {
            PeerCommand::Ban(subject, ms) => {
                if self.machine.reputation().is_banned(now.wall, &subject) {
                    return Err(PeerRefusal::AlreadyBanned);
                }
                self.feed(io, Input::Ban(subject, ms));
            }
            PeerCommand::Unban(subject) => {
                if !self.machine.reputation().is_banned(now.wall, &subject) {
                    return Err(PeerRefusal::NotBanned);
                }
                self.feed(io, Input::Unban(subject));
            }
            PeerCommand::ClearBans => self.feed(io, Input::ClearBans),
            PeerCommand::Disconnect(which) => {
                let is = |(id, conn): (&PeerId, &Conn)| match &which {
                    WhichPeer::Id(wanted) => id.0 == *wanted,
                    WhichPeer::Address(address) => conn.address.to_string() == *address,
                };
                let found = self.conns.iter().find(|(id, conn)| is((id, conn)));
                let peer = found.map(|(id, _)| *id).ok_or(PeerRefusal::NotConnected)?;
                self.feed(io, Input::Disconnect(peer));
            }
            PeerCommand::Add(address) => {
                if self.machine.is_target(&address) {
                    return Err(PeerRefusal::AlreadyAdded);
                }
                self.feed(io, Input::AddTarget(address));
            }
            PeerCommand::Remove(address) => {
                if !self.machine.is_target(&address) {
                    return Err(PeerRefusal::NotAdded);
                }
                self.feed(io, Input::RemoveTarget(address));
            }
            PeerCommand::Try(address) => self.feed(io, Input::Try(address)),
        }
        Ok(())
    }
}
