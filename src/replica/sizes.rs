//! How full everything is that peers, clients or time can fill. Read only: simulations compare it with the bounds all
//! the time, metrics may show it. It must name every container of the replica that grows.

use crate::base::limits::*;
use crate::consensus::tally::POLKAS_PER_ROUND_MAX;
use crate::replica::blocks::BLOCK_COUNT_MAX;
use crate::replica::catchup::BEHIND_COUNT_MAX;
use crate::replica::frames::CHECKING_VOTE_COUNT_MAX;
use crate::replica::machine::{
    AHEAD_BYTES_MAX, AHEAD_FRAME_COUNT_MAX, CHECKS_OUT_MAX, LEDGER_BEHIND_MAX, Replica,
};
use crate::replica::peers::{KNOWN_TX_COUNT_MAX, RELAY_COUNT_MAX};
use crate::replica::relay::KNOWN_VOTE_COUNT_MAX;
use crate::replica::requests::NAMED_COUNT_MAX;

/// Inputs and outputs of one block: none is shorter than this, encoded.
pub(super) const CHANGE_BYTES_MIN: usize = 36;
/// Records that a height adds to the signer store beside its polkas: messages of a round, lock, valid block, entry, blocks,
/// certificate.
const RECORDS_PER_ROUND: usize = 8;

impl Replica {
    /// Every container and its bound.
    pub fn sizes(&self) -> Vec<Size> {
        let mut sizes = self.mempool.sizes();
        sizes.extend(self.catchup.sizes());
        sizes.extend(self.liveness.sizes());
        sizes.extend(self.guard.sizes());
        sizes.extend(self.clock.sizes());
        sizes.extend(self.accused.sizes());
        sizes.extend(self.height.engine.sizes());
        let reorg = self.state.params().max_reorg as usize;
        sizes.extend(self.forks.sizes(reorg));
        sizes.extend(self.sizes_of_chain());
        sizes.extend(self.sizes_of_height());
        sizes.extend(self.sizes_of_peers());
        sizes
    }

    fn sizes_of_chain(&self) -> Vec<Size> {
        let behind = LEDGER_BEHIND_MAX + BEHIND_COUNT_MAX;
        let changes = behind * (BLOCK_BODIES_BYTES_MAX / CHANGE_BYTES_MIN);
        let waiting = CHECKS_OUT_MAX + TXS_PER_FRAME;
        let members = REGISTERED_COUNT_MAX;
        vec![
            Size::new("undurable blocks", self.undurable.len(), behind),
            Size::new("coins of undurable blocks", self.pending.len(), changes),
            Size::new(
                "times of first sight",
                self.first_seen.len(),
                self.mempool.limits().count + waiting,
            ),
            Size::new(
                "names of transactions offered",
                self.requests.len(),
                NAMED_COUNT_MAX,
            ),
            Size::new(
                "peers that offered transactions",
                self.requests.peer_count(),
                PEER_COUNT_MAX,
            ),
            Size::new("transactions to push", self.pushes.len(), TXS_PER_FRAME),
            Size::new("greatest votes seen", self.seen.len(), members),
            Size::new("heights over", self.late.sizes().0, LATE_HEIGHT_COUNT_MAX),
            Size::new("votes of them", self.late.sizes().1, LATE_VOTE_COUNT_MAX),
            Size::new(
                "signature checks given out",
                self.checks_out,
                waiting + CHECKING_VOTE_COUNT_MAX,
            ),
        ]
    }

    fn sizes_of_height(&self) -> Vec<Size> {
        let height = &self.height;
        let round = height.engine.at().round.0 as usize;
        let rounds = round + 1 + ROUNDS_AHEAD as usize;
        let heights = self.undurable.len() + 2;
        let kept = self.state.params().max_reorg as usize * POLKAS_PER_ROUND_MAX;
        let records = heights * (RECORDS_PER_ROUND * rounds.max(16) + BLOCK_COUNT_MAX)
            + kept * rounds.max(16);
        vec![
            Size::new(
                "frames of the next height",
                self.ahead.len(),
                AHEAD_FRAME_COUNT_MAX,
            ),
            Size::new(
                "bytes of the next height",
                self.ahead_bytes,
                AHEAD_BYTES_MAX,
            ),
            Size::new(
                "blocks of a height",
                height.blocks.len(),
                BLOCK_COUNT_MAX + 3,
            ),
            Size::new("blocks wanted", height.wanted.len(), BLOCK_COUNT_MAX + 3),
            Size::new(
                "proposals of a height",
                height.proposals.len(),
                BLOCK_COUNT_MAX,
            ),
            Size::new("timers", height.timers.len(), 3 * rounds),
            Size::new("timers by name", height.timer_of.len(), 3 * rounds),
            Size::new(
                "votes being checked",
                height.checking.len(),
                CHECKING_VOTE_COUNT_MAX,
            ),
            Size::new("own votes", height.own_votes.len(), 2 * rounds),
            Size::new("own proposals", height.own_proposals.len(), rounds),
            Size::new("signer records", self.gate.len(), records),
            Size::new("own messages that wait", self.gate.waiting(), records),
        ]
    }

    fn sizes_of_peers(&self) -> Vec<Size> {
        let most = |of: &dyn Fn(&crate::replica::peers::Peer) -> usize| {
            self.peers
                .iter()
                .map(|(_, peer)| of(peer))
                .max()
                .unwrap_or(0)
        };
        let rounds = self.height.engine.at().round.0 as usize + 1 + BLOCK_COUNT_MAX;
        vec![
            Size::new("peers", self.peers.map.len(), PEER_COUNT_MAX),
            Size::new(
                "votes known of a peer",
                most(&|p| p.votes.len()),
                KNOWN_VOTE_COUNT_MAX,
            ),
            Size::new(
                "proposals known of a peer",
                most(&|p| p.proposals.len()),
                rounds,
            ),
            Size::new(
                "transactions known of a peer",
                most(&|p| p.txs.len()),
                KNOWN_TX_COUNT_MAX,
            ),
            Size::new(
                "signers passed on to a peer",
                most(&|p| p.feeds.len()),
                VALIDATOR_COUNT_MAX,
            ),
            Size::new(
                "order of transactions known of a peer",
                most(&|p| p.txs_order.len()),
                KNOWN_TX_COUNT_MAX,
            ),
            Size::new(
                "signers passed on",
                self.peers.fed.len(),
                VALIDATOR_COUNT_MAX,
            ),
            Size::new(
                "votes heard",
                self.peers.heard.len(),
                KNOWN_VOTE_COUNT_MAX + 2 * rounds,
            ),
            Size::new("proposals heard", self.peers.offered.len(), rounds),
            Size::new("votes to relay", self.peers.votes.len(), RELAY_COUNT_MAX),
            Size::new(
                "proposals to relay",
                self.peers.proposals.len(),
                VOTES_PER_FRAME,
            ),
            Size::new("names to announce", self.peers.txs.len(), RELAY_COUNT_MAX),
        ]
    }
}
