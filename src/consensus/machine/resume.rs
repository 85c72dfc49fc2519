//! Going on with a height that was under way: after a start from the signer store, or after messages that this node was
//! not allowed to sign. Input: what was signed. Output: a machine that stands right after its last signed message.
//!
//! Must never: put the machine behind what this node has signed (I2), or forget a lock (I4).

use super::Machine;
use crate::consensus::messages::{HeightContext, Kind, Output, Position, Restored};
use crate::consensus::round::{RoundState, Step};
use crate::consensus::timeouts::TimerKind;
use crate::types::ids::Round;

impl Machine {
    /// A height that was under way when the node stopped (S5). Continues after the last message signed.
    pub fn restore(ctx: HeightContext, restored: Restored) -> (Machine, Vec<Output>) {
        let mut machine = Machine::new(ctx);
        let out = machine.resume(&restored);
        (machine, out)
    }

    /// The same in a process that goes on: requests to sign that were refused are undone, while everything heard is kept.
    /// What let this node into its round, or a polka, may have reached nobody else (V2, V3), so peers cannot be relied on
    /// to tell it again.
    pub fn revive(&mut self, restored: &Restored) -> Vec<Output> {
        self.state = RoundState::new(self.ctx.era);
        self.entry.clear();
        self.build = None;
        self.resume(restored)
    }

    fn resume(&mut self, restored: &Restored) -> Vec<Output> {
        let mut out = Vec::new();
        let votes = restored.votes.iter();
        let votes = votes.map(|vote| Position::of_vote(&vote.body));
        let proposals = restored.proposals.iter().map(|proposal| Position {
            at: proposal.body.at(),
            kind: Kind::Proposal,
        });
        self.last = votes.chain(proposals).max();
        self.state.locked = restored.lock;
        self.state.valid = restored.valid.max(restored.lock);
        let blocks = restored.blocks.iter().copied();
        self.verdicts.extend(blocks.map(|block| (block, true)));
        if let Some(last) = self.last.filter(|last| last.at.era == self.ctx.era) {
            if last.at.round > Round(0) {
                self.state.enter(last.at.round);
            }
            self.state.step = match last.kind {
                Kind::Proposal => Step::Propose,
                Kind::Prevote => Step::Prevote,
                Kind::Precommit => Step::Precommit,
            };
        }
        self.move_window(&mut out);
        for polka in &restored.polkas {
            self.add_polka(polka, &mut out);
        }
        for vote in restored.entry.iter().chain(&restored.votes) {
            self.add_vote(vote, &mut out);
        }
        if self.state.step == Step::Propose {
            self.schedule(TimerKind::Propose, &mut out);
        }
        self.run(&mut out);
        out
    }
}
