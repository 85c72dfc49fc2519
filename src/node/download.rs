//! Fetching a snapshot on the sync thread (F4): the pure fetch, its files, and what it asks of peers and pool.

use super::snapshots::Incoming;
use crate::base::time::Now;
use crate::ledger::snapshot::Contents;
use crate::node::netcmd::NetCommand;
use crate::node::syncer::{Outlets, SyncInput};
use crate::p2p::messages::{Message, PeerId};
use crate::storage::{LedgerStore, SnapshotFileError};
use crate::sync::SlotHead;
use crate::sync::fetch::{Fetch, FetchEffect, FetchInput, FetchProgress};
use crate::types::block::CertifiedHeader;
use crate::types::ids::Height;
use std::path::Path;
use std::sync::Arc;

/// How a fetch stands after an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// It goes on.
    Going,
    /// Everything is there; the node starts again with it.
    Whole,
    /// It cannot be done: blocks are fetched instead.
    Given,
}

/// A fetch under way.
pub struct Download {
    fetch: Fetch,
    incoming: Incoming,
}

impl Download {
    /// Begins or goes on.
    pub fn new(now: Now, root: &Path, ledger: &LedgerStore) -> Result<Download, SnapshotFileError> {
        let incoming = Incoming::new(root, ledger)?;
        log::info!("a snapshot is looked for");
        Ok(Download {
            fetch: Fetch::new(now),
            incoming,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> FetchProgress {
        self.fetch.progress()
    }

    /// Slot headers were verified.
    pub fn headers(&mut self, items: &[CertifiedHeader]) {
        if let Err(error) = self.incoming.add_headers(items) {
            log::error!("{}: {error}", self.incoming.dir().0.display());
        }
    }

    /// Takes an input and performs what follows.
    pub fn take(
        &mut self,
        now: Now,
        input: FetchInput,
        heads: &dyn Fn(Height) -> Option<SlotHead>,
        out: &Outlets,
    ) -> Fetched {
        self.fetch.handle(now, input, heads);
        let mut state = Fetched::Going;
        while let Some(effect) = self.fetch.effect() {
            match effect {
                FetchEffect::AskOffer(peer) => out.send(PeerId(peer), Message::GetSnapshot(())),
                FetchEffect::AskChunk(peer, what) => {
                    out.send(PeerId(peer), Message::GetChunk(what))
                }
                FetchEffect::Chosen(contents) => self.chosen(&contents),
                FetchEffect::Check(piece, chunks) => self.check(piece, chunks, out),
                FetchEffect::Fault(peer, why) => {
                    log::warn!("peer {peer}: {why}");
                    out.net.put(NetCommand::Fault(PeerId(peer), why));
                }
                FetchEffect::Done => state = self.done(),
                FetchEffect::GaveUp => {
                    log::warn!("no peer offers a usable snapshot: blocks are fetched instead");
                    state = Fetched::Given;
                }
            }
        }
        state
    }

    fn chosen(&mut self, contents: &Contents) {
        match self.incoming.choose(contents) {
            Ok(there) => {
                log::info!(
                    "fetching the snapshot of height {}: {} coins, {} of 257 pieces are there",
                    contents.header.height,
                    contents.coins(),
                    there.len()
                );
                self.fetch.keep(there);
            }
            Err(error) => log::error!("{}: {error}", self.incoming.dir().0.display()),
        }
    }

    fn check(&self, piece: u16, chunks: Vec<Vec<u8>>, out: &Outlets) {
        let Some(contents) = self.fetch.contents().cloned() else {
            return;
        };
        let (inbox, dir) = (out.inbox.clone(), self.incoming.dir().clone());
        out.pool.spawn(move || {
            let good = Incoming::check(&dir, &contents, piece, &chunks);
            inbox.put(SyncInput::Piece(piece, good));
        });
    }

    fn done(&mut self) -> Fetched {
        let Some(contents) = self.fetch.contents().cloned() else {
            return Fetched::Given;
        };
        match self.incoming.finish(&contents) {
            Ok(()) => Fetched::Whole,
            Err(error) => {
                log::error!("{error}");
                Fetched::Given
            }
        }
    }
}

impl Outlets {
    /// Sends a frame to a peer.
    pub fn send(&self, peer: PeerId, message: Message) {
        let message = Arc::new(message);
        self.net.put(NetCommand::Send(vec![peer], message));
    }
}
