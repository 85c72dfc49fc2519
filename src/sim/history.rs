//! A past without a network: blocks that a quorum of masternodes has decided one after the other, put on the disks of some
//! nodes before anybody starts. For networks in which somebody is far behind.

use crate::base::bounded::BoundedVec;
use crate::ledger::apply::{self, BuildInput, Delta};
use crate::ledger::decided::DecidedBlock;
use crate::replica::record::{Position, Record, Step};
use crate::sim::disk::LedgerDisk;
use crate::sim::kit::GENESIS_TIME;
use crate::sim::world::World;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Block, Certificate, Commit};
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::vote::{VoteBody, VoteStep};
use std::sync::Arc;

impl World {
    /// These masternodes, a quorum, have decided `count` blocks with a payment in each, as fast as the parameters allow.
    /// Before anybody starts; time begins after the last block. An error names what went wrong.
    pub fn live_through(&mut self, by: &[usize], count: u64) -> Result<(), String> {
        let mut past = LedgerDisk::new(&self.genesis);
        let mut last = Commit::default();
        for _ in 0..count {
            let (block, delta) = self.past_block(&past, last)?;
            let certificate = self.past_certificate(by, &past, &block)?;
            last = certificate.commit.clone();
            self.now = (block.header.time.0 - GENESIS_TIME.0) * 1_000;
            for tx in block.transactions.iter() {
                self.clients.settle(self.now, &tx.txid);
            }
            let decided = Arc::new(DecidedBlock {
                block: Arc::new(block),
                certificate,
                delta: Arc::new(delta),
            });
            self.checker.on_decided(by[0], &decided)?;
            past.writing.push_back(decided);
            past.finish_one();
        }
        self.validators = past.state.validators.clone();
        self.clients.finality.clear();
        for i in by {
            let signed = Record::HighWater(Position {
                era: Era(0),
                height: past.state.height(),
                round: Round(0),
                step: Step::Precommit,
            });
            let signer = &mut self.nodes[*i].signer;
            signer.records.insert(signed.key(), signed.value());
            self.nodes[*i].ledger = past.clone();
        }
        Ok(())
    }

    fn past_block(
        &mut self,
        past: &LedgerDisk,
        last_commit: Commit,
    ) -> Result<(Block, Delta), String> {
        let state = &past.state;
        let paid = self.clients.pay(self.now).ok_or("nobody can pay")?;
        let input = BuildInput {
            round: Round(0),
            proposer: state.leader(Round(0)),
            time: state.earliest(),
            last_commit,
            slot_part: SlotPart::default(),
            candidates: vec![paid],
        };
        apply::build(&past.coins, state, input).map_err(|error| error.to_string())
    }

    fn past_certificate(
        &self,
        by: &[usize],
        past: &LedgerDisk,
        block: &Block,
    ) -> Result<Certificate, String> {
        let state = &past.state;
        let body = VoteBody {
            step: VoteStep::Precommit,
            branch: block.header.branch,
            era: block.header.era,
            height: block.header.height,
            round: Round(0),
            valid_round: None,
            block: Some(block.id()),
        };
        let hash = body.signing_hash(state.chain_id());
        let operators = by.iter().filter_map(|i| self.nodes[*i].operator.as_ref());
        let mut signed: Vec<_> = operators
            .filter_map(|(id, key)| Some((state.validators.index_of(id)?, key.sign(&hash))))
            .collect();
        signed.sort_unstable_by_key(|(index, _)| *index);
        let members = state.validators.len();
        Ok(Certificate {
            height: block.header.height,
            block: block.id(),
            commit: Commit {
                at: body.at(),
                signers: Bitmap::from_ones(members, signed.iter().map(|(index, _)| *index)),
                signatures: BoundedVec::take_from(signed.iter().map(|(_, signature)| *signature)),
            },
        })
    }
}
