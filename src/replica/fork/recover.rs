//! What operators see of a fork and what they may do about it (B6 step 7).

use crate::base::time::Now;
use crate::ledger::fork::power_of;
use crate::replica::machine::Replica;
use crate::types::fork::RecoveryCert;
use crate::types::ids::*;
use crate::types::masternode::Offence;

/// One of the two branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchInfo {
    /// Its block at the height of the fork.
    pub block: BlockId,
    /// Round in which it was decided.
    pub at: EraRound,
    /// Power of the members that have stated it in the newest attempt.
    pub stated: Power,
}

/// A fork, open or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkInfo {
    /// Height at which two blocks are decided.
    pub height: Height,
    /// Era that the fork ends.
    pub era: Era,
    /// Whether nothing has been agreed yet.
    pub open: bool,
    /// The branches.
    pub branches: Vec<BranchInfo>,
    /// The block that this node had decided.
    pub held: Option<BlockId>,
    /// The block that stays, once that is agreed.
    pub stays: Option<BlockId>,
    /// Who is proved guilty, and of what.
    pub culprits: Vec<(MasternodeId, &'static str)>,
    /// Power of the culprits and of the whole set.
    pub power: (Power, Power),
    /// Power that statements for one block must exceed.
    pub needed: Power,
    /// Newest attempt of this node, if it has stated a block.
    pub attempt: Option<u32>,
    /// Heights that this node would take back if the other branch stayed.
    pub depth: u64,
    /// Payments of blocks that were taken back.
    pub returned: Vec<Txid>,
    /// What is going on and what the operator should do.
    pub advice: String,
}

/// Why an operator's choice was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Nothing to recover from.
    #[error("there is no open fork: nothing to recover from")]
    NoFork,
    /// Nothing that is stated could be carried out.
    #[error("the fork is deeper than max_reorg: getforkinfo says what to do instead")]
    TooDeep,
    /// Not one of the two blocks.
    #[error("{0} is neither of the two blocks of the fork: see getforkinfo")]
    Branch(BlockId),
    /// This node may not state anything.
    #[error("this node states nothing: {0}")]
    Refused(&'static str),
}

fn offence_name(offence: &Offence) -> &'static str {
    match offence {
        Offence::Proposals(..) => "two proposals of one round",
        Offence::Votes(..) => "two votes of one round",
        Offence::Amnesia(..) => "a vote against its own lock (amnesia)",
        Offence::Statements(..) => "two statements of one attempt",
    }
}

impl Replica {
    /// The fork that is open, else the last one that ended.
    pub fn fork(&self) -> Option<ForkInfo> {
        let open = self.open_fork().or_else(|| self.deep_fork());
        open.or_else(|| self.ended_fork())
    }

    fn open_fork(&self) -> Option<ForkInfo> {
        let case = self.forks.case.as_ref()?;
        let attempt = case.attempt().unwrap_or(0).max(case.seen_attempt());
        let culprits = case.culprits();
        let guilty = power_of(&culprits, &case.set);
        let total = case.set.total();
        let branch = |block| BranchInfo {
            block,
            at: case
                .proof
                .side(block)
                .map_or_else(EraRound::default, |d| d.certificate.commit.at),
            stated: case.stated(attempt, block),
        };
        let needed = Power(2 * (total.0 - guilty.0) / 3);
        let [one, other] = case.proof.blocks();
        let word = format!(
            "operators must agree on ONE branch and run 'timed recover --branch {one} --i-know' or 'timed recover --branch {other} --i-know' on masternodes with more than {needed} power that are not among the culprits"
        );
        let advice = match (case.is_proved(), case.missing) {
            (false, Some((at, block))) => format!(
                "asking peers for the prevotes of round {at} for block {block}, which name the culprits; if nobody has them, {word}"
            ),
            (false, None) => format!("the culprits cannot be proved: {word}"),
            (true, _) => format!(
                "waiting for statements for one branch with more than {needed} power; if the members are split, {word}"
            ),
        };
        Some(ForkInfo {
            height: case.proof.height(),
            era: case.era,
            open: true,
            branches: case.proof.blocks().into_iter().map(branch).collect(),
            held: case.held,
            stays: None,
            culprits: culprits
                .iter()
                .map(|e| (e.offender, offence_name(&e.offence)))
                .collect(),
            power: (guilty, total),
            needed,
            attempt: case.attempt(),
            depth: (self.state.height().0 + 1).saturating_sub(case.proof.height().0),
            returned: Vec::new(),
            advice,
        })
    }

    fn ended_fork(&self) -> Option<ForkInfo> {
        let cert = self.forks.certs.values().next_back()?;
        let branch = |block| BranchInfo {
            block,
            at: cert
                .fork
                .side(block)
                .map_or_else(EraRound::default, |d| d.certificate.commit.at),
            stated: Power(0),
        };
        let returned = self.forks.returned.clone();
        let advice = match returned.len() {
            _ if self.forks.others.lacking.is_some() => "the chain of a peer names a recovery certificate that this node does not hold, or cannot judge: peers that have it tell it when they connect; if that does not help, stop the node, 'timed db rebuild', and start it again".into(),
            0 => format!("the fork has ended, era {} goes on", cert.era.next()),
            count => format!(
                "the fork has ended; {count} payments of the branch that is gone were put back into the mempool: check with gettransaction whether they were decided again"
            ),
        };
        Some(ForkInfo {
            height: cert.fork.height(),
            era: cert.era,
            open: false,
            branches: cert.fork.blocks().into_iter().map(branch).collect(),
            held: None,
            stays: Some(cert.block),
            culprits: cert
                .culprits
                .iter()
                .map(|e| (e.offender, offence_name(&e.offence)))
                .collect(),
            power: (Power(0), Power(0)),
            needed: Power(0),
            attempt: Some(cert.attempt),
            depth: 0,
            returned,
            advice,
        })
    }

    /// What ended the forks of this chain, by era.
    pub fn recoveries(&self) -> Vec<RecoveryCert> {
        self.forks.certs.values().cloned().collect()
    }

    /// B6 step 7: operators have agreed on a branch. States it in the attempt after the last one; the attempt.
    pub fn recover(&mut self, now: Now, block: BlockId) -> Result<u32, RecoverError> {
        if self.forks.case.is_none() && self.deep_fork().is_some() {
            return Err(RecoverError::TooDeep);
        }
        let case = self.forks.case.as_ref().ok_or(RecoverError::NoFork)?;
        if case.proof.side(block).is_none() {
            return Err(RecoverError::Branch(block));
        }
        // Operators meet in one attempt: the newest that anybody made, unless this node has used it up.
        let own = case
            .attempt()
            .map_or(0, |attempt| attempt.saturating_add(1));
        let attempt = own.max(case.seen_attempt()).max(1);
        self.state_branch(attempt, Some(block))
            .map_err(RecoverError::Refused)?;
        self.tend_case(now);
        if let Some(case) = &mut self.forks.case {
            // The record waits to be written: at once, not in a while.
            case.due = now.mono;
        }
        Ok(attempt)
    }
}
