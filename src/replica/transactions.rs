//! Transactions on their way into the mempool and out to peers (section 5, L4).

use crate::base::bounded::BoundedVec;
use crate::base::limits::{FRAME_TX_BYTES, INV_COUNT_MAX};
use crate::base::time::Now;
use crate::crypto::verify::Verified;
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::mempool::{Admission, AdmitError, Departed, Refusal, Source};
use crate::p2p::messages::{Message, PeerId};
use crate::replica::io::*;
use crate::replica::machine::{CHECKS_OUT_MAX, Replica};
use crate::replica::requests::NAMED_COUNT_MAX;
use crate::types::block::Block;
use crate::types::ids::*;
use crate::types::transaction::Tx;
use std::sync::Arc;

/// Transactions named to a peer that has just connected, the oldest: fewer than it can take of four peers at once.
const GREETING_COUNT_MAX: usize = 8_000;

const _: () = assert!(4 * GREETING_COUNT_MAX <= NAMED_COUNT_MAX);

fn source_of(origin: Origin) -> Source {
    match origin {
        Origin::Local(_) => Source::Local,
        Origin::Peer(peer) => Source::Peer(peer.0),
    }
}

/// A bounded name of a refusal, for metrics.
fn label(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Known => "known",
        Refusal::RejectedBefore => "rejected-before",
        Refusal::OtherBranch => "other-branch",
        Refusal::Coinbase => "coinbase",
        Refusal::Invalid(_) => "invalid",
        Refusal::Conflict { .. } => "conflict",
        Refusal::OtherWitness(_) => "other-witness",
        Refusal::SpentByDecided { .. } => "spent",
        Refusal::Missing(_) | Refusal::NoSuchCoin(_) => "missing-input",
        Refusal::TooDeep => "too-deep",
        Refusal::PeerShare => "peer-share",
        Refusal::Full => "full",
    }
}

impl Replica {
    /// A transaction is offered: cheap questions first, then its signatures go to the pool.
    pub(super) fn offer(
        &mut self,
        now: Now,
        tx: Tx,
        origin: Origin,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        self.requests.arrived(&tx.wtxid);
        if matches!(origin, Origin::Peer(_)) && self.checks_out + self.verify.len() > CHECKS_OUT_MAX
        {
            self.event(Event::Shed("transactions being checked"));
            return Ok(());
        }
        let source = source_of(origin);
        let admission = self.with_view(view, |replica, layered| {
            replica
                .mempool
                .consider(now, &tx, source, layered, &replica.state)
        })?;
        match admission {
            Admission::Known => self.answer(origin, Err(SubmitError::InMempool)),
            Admission::Orphan { missing } => {
                let missing = missing.first().copied().unwrap_or_default();
                self.answer(origin, Err(SubmitError::MissingInput(missing)));
            }
            Admission::Refused(refusal) => self.refuse(origin, &refusal),
            Admission::Check { checks, .. } => {
                self.first_seen.entry(tx.txid).or_insert(now.mono);
                self.check(Item::Tx(origin, tx), checks);
            }
        }
        Ok(())
    }

    /// An orphan whose parent has come is offered again.
    pub(super) fn offer_again(
        &mut self,
        now: Now,
        tx: Tx,
        source: Source,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let origin = match source {
            Source::Peer(peer) => Origin::Peer(PeerId(peer)),
            _ => Origin::Local(None),
        };
        self.offer(now, tx, origin, view)
    }

    fn answer(&mut self, origin: Origin, result: Result<Txid, SubmitError>) {
        if let Origin::Local(Some(token)) = origin {
            self.out.push(Effect::Reply(token, result));
        }
    }

    fn refuse(&mut self, origin: Origin, refusal: &Refusal) {
        let error = match refusal {
            Refusal::Known => SubmitError::InMempool,
            Refusal::Missing(outpoint) | Refusal::NoSuchCoin(outpoint) => {
                SubmitError::MissingInput(*outpoint)
            }
            Refusal::Conflict {
                outpoint, first, ..
            } => SubmitError::Conflict {
                outpoint: *outpoint,
                by: first.txid,
            },
            Refusal::Full => SubmitError::Full,
            other => SubmitError::Refused(other.to_string()),
        };
        self.event(Event::MempoolRefused(label(refusal)));
        self.answer(origin, Err(error));
    }

    /// A transaction's signatures hold: into the mempool, and on to peers.
    pub(super) fn admit(
        &mut self,
        now: Now,
        origin: Origin,
        tx: Tx,
        proof: Verified<Tx>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let source = source_of(origin);
        let admitted = self.with_view(view, |replica, layered| {
            replica
                .mempool
                .admit(now, proof, source, layered, &replica.state)
        });
        match admitted {
            Ok(admitted) => {
                self.forget_departed(&admitted.evicted);
                self.event(Event::MempoolAccepted(vec![tx.txid]));
                self.answer(origin, Ok(tx.txid));
                match origin {
                    Origin::Local(_) => self.pushes.push(tx),
                    Origin::Peer(_) => self.peers.relay_tx(now.mono, tx.wtxid),
                }
                for (orphan, source) in admitted.orphans_now_ready {
                    self.offer_again(now, orphan, source, view)?;
                }
                Ok(())
            }
            Err(AdmitError::View(error)) => Err(error),
            Err(AdmitError::Refused { refusal, evicted }) => {
                self.forget_departed(&evicted);
                self.first_seen.remove(&tx.txid);
                self.refuse(origin, &refusal);
                Ok(())
            }
        }
    }

    /// A transaction's signature does not hold: remembered by wtxid, so that its txid is not spoiled (L4).
    pub(super) fn refuse_signature(&mut self, origin: Origin, tx: &Tx) {
        self.mempool.reject(tx.wtxid);
        self.first_seen.remove(&tx.txid);
        self.event(Event::MempoolRefused("signature"));
        match origin {
            Origin::Peer(peer) => self
                .out
                .push(Effect::Fault(peer, "a transaction with a bad signature")),
            local => self.answer(
                local,
                Err(SubmitError::Refused("a signature does not hold".into())),
            ),
        }
    }

    /// Time from first sight to finality of the transactions of a decided block.
    pub(super) fn finality_of(&self, now: Now, block: &Block) -> Vec<(Txid, u64)> {
        let seen = |tx: &Tx| {
            self.first_seen
                .get(&tx.txid)
                .map(|at| (tx.txid, now.mono.since(*at)))
        };
        block.transactions.iter().filter_map(seen).collect()
    }

    pub(super) fn forget_departed(&mut self, departed: &[Departed]) {
        for gone in departed {
            self.first_seen.remove(&gone.tx.txid);
        }
    }

    /// A peer names transactions it holds: those unknown are asked for.
    pub(super) fn inventory(&mut self, now: Now, peer: PeerId, wtxids: &[Wtxid]) {
        let Some(masternode) = self.peers.get(peer).map(|p| p.masternode.is_some()) else {
            return;
        };
        let mut wanted = Vec::new();
        for wtxid in wtxids {
            self.peers.has_tx(peer, *wtxid);
            if !self.mempool.has_seen(wtxid)
                && self.requests.named(now.mono, peer, masternode, *wtxid)
            {
                wanted.push(*wtxid);
            }
        }
        self.ask_for_transactions(peer, &wanted);
    }

    /// What was asked for and has not come is asked of others who named it.
    pub(super) fn ask_others(&mut self, now: Now) {
        for (peer, mut wtxids) in self.requests.due(now.mono) {
            wtxids.retain(|wtxid| {
                let seen = self.mempool.has_seen(wtxid);
                if seen {
                    self.requests.arrived(wtxid);
                }
                !seen
            });
            self.ask_for_transactions(peer, &wtxids);
        }
    }

    fn ask_for_transactions(&mut self, peer: PeerId, wtxids: &[Wtxid]) {
        for part in wtxids.chunks(INV_COUNT_MAX) {
            self.send(
                peer,
                Message::GetTx(BoundedVec::take_from(part.iter().copied())),
            );
        }
    }

    /// Names to a new peer what waits here: it was told to others before this one came, or to nobody.
    pub(super) fn greet_with_transactions(&mut self, peer: PeerId) {
        let waiting = self.mempool.iter().take(GREETING_COUNT_MAX);
        let wtxids: Vec<Wtxid> = waiting.map(|(tx, _)| tx.wtxid).collect();
        for part in wtxids.chunks(INV_COUNT_MAX) {
            self.send(
                peer,
                Message::TxInv(BoundedVec::take_from(part.iter().copied())),
            );
        }
    }

    pub(super) fn serve_transactions(&mut self, peer: PeerId, wtxids: &[Wtxid]) {
        let held: Vec<Tx> = wtxids
            .iter()
            .filter_map(|w| self.mempool.get_by_wtxid(w).cloned())
            .collect();
        held.iter().for_each(|tx| self.peers.has_tx(peer, tx.wtxid));
        for frame in frames_of(&held) {
            self.send(peer, frame);
        }
    }

    /// This node's own transactions go to every peer at once: naming them first would cost a round trip.
    pub(super) fn push_transactions(&mut self) {
        if self.pushes.is_empty() {
            return;
        }
        let txs = std::mem::take(&mut self.pushes);
        let to = self.peers.ids();
        if to.is_empty() {
            return;
        }
        for peer in &to {
            txs.iter().for_each(|tx| self.peers.has_tx(*peer, tx.wtxid));
        }
        for frame in frames_of(&txs) {
            self.out.push(Effect::Send(to.clone(), Arc::new(frame)));
        }
    }
}

/// Transactions in as few frames as their limit allows.
fn frames_of(txs: &[Tx]) -> Vec<Message> {
    let mut frames = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 8);
    for tx in txs {
        if bytes + tx.size > FRAME_TX_BYTES {
            frames.push(Message::Txs(BoundedVec::take_from(part.drain(..))));
            bytes = 8;
        }
        bytes += tx.size;
        part.push(tx.clone());
    }
    if !part.is_empty() {
        frames.push(Message::Txs(BoundedVec::take_from(part)));
    }
    frames
}

impl Replica {
    /// What offering `tx` would find, signatures excepted: for people who ask before they send.
    pub fn consider(
        &mut self,
        now: Now,
        tx: &Tx,
        view: &dyn CoinView,
    ) -> Result<Admission, ViewError> {
        self.with_view(view, |replica, layered| {
            replica
                .mempool
                .consider(now, tx, Source::Local, layered, &replica.state)
        })
    }

    /// Takes back what a clean stop saved: each is offered again as it would be by a peer, with its age.
    pub fn restore_transactions(
        &mut self,
        now: Now,
        saved: Vec<Tx>,
        view: &dyn CoinView,
    ) -> Result<Vec<Effect>, ViewError> {
        for tx in saved {
            self.offer(now, tx, Origin::Local(None), view)?;
        }
        self.handle(now, Input::Tick, view)
    }
}
