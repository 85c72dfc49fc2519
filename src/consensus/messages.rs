//! What goes into a height's machine and what comes out of it.

use crate::consensus::round::Pinned;
use crate::consensus::rules::Rules;
use crate::consensus::timeouts::Timer;
use crate::crypto::verify::Verified;
use crate::types::block::Certificate;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use crate::types::params::Params;
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{ProposalBody, SignedProposal, Vote, VoteBody, VoteStep};
use std::sync::Arc;

/// Who leads which round of the height (B4). Asked only for rounds up to the machine's own + 1.
pub trait Leaders: Send + Sync {
    /// The leader of `round`.
    fn leader(&self, round: Round) -> MasternodeId;
}

impl<F: Fn(Round) -> MasternodeId + Send + Sync> Leaders for F {
    fn leader(&self, round: Round) -> MasternodeId {
        self(round)
    }
}

/// What a height starts from. All of it is a function of the decided chain but `me`.
#[derive(Clone)]
pub struct HeightContext {
    /// Rule set in force.
    pub branch: Branch,
    /// Era of the height.
    pub era: Era,
    /// The height to decide.
    pub height: Height,
    /// Who decides it.
    pub set: Arc<ValidatorSet>,
    /// This node's masternode if it may sign (SURE, B7); then `Output::Sign` comes. `None` follows without signing.
    pub me: Option<MasternodeId>,
    /// Timeouts.
    pub params: Arc<Params>,
    /// Leaders by round.
    pub leaders: Arc<dyn Leaders>,
    /// `Rules::default()`.
    pub rules: Rules,
}

/// What the signer store and the ledger hold of a height that was under way (S5).
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Own votes of the height, in any order. They are fed to the tally; the driver sends them again as they were.
    pub votes: Vec<Verified<Vote>>,
    /// Own proposals of the height.
    pub proposals: Vec<Verified<SignedProposal>>,
    /// The lock. It binds whether its block is held or not (I4).
    pub lock: Option<Pinned>,
    /// The valid value.
    pub valid: Option<Pinned>,
    /// Every polka stored for the height.
    pub polkas: Vec<Verified<Polka>>,
    /// What let the node into the round of its last message.
    pub entry: Vec<Verified<Vote>>,
    /// Blocks of the height that are held and valid.
    pub blocks: Vec<BlockId>,
}

/// What happens to a height.
#[derive(Debug, Clone)]
pub enum Input {
    /// A reason to act exists and now >= time of the parent + min_block_interval (S3): round 0 starts. Later ones change
    /// nothing.
    Begin,
    /// A proposal, also an own one once it is durable. The block need not be held: [`Input::Validity`] follows.
    Proposal {
        /// Signed by somebody of the set; whether that is the leader is asked here.
        proposal: Verified<SignedProposal>,
        /// Era and round of the block's header.
        header_at: EraRound,
        /// S4 and M4 and the clock guard, judged when the frame was read. Asked only for fresh proposals.
        acceptable: bool,
    },
    /// A vote; an own one only once it is durable: then, and not before, it counts (S5).
    Vote(Verified<Vote>),
    /// A polka by itself (under the set of its era).
    Polka(Verified<Polka>),
    /// Answer to `Output::WantBlock`: the block is held completely and valid, or it is not valid. Not before it is asked.
    Validity {
        /// Which.
        block: BlockId,
        /// The ledger's verdict.
        valid: bool,
    },
    /// Answer to `Output::Build`: a fresh block, whose header names this height and round, is held and valid.
    Built {
        /// The round it was built for.
        round: Round,
        /// The block.
        block: BlockId,
    },
    /// A timer asked for by `Output::Schedule` ran out.
    Timeout(Timer),
    /// A certificate of this height, from sync or a peer. It decides (S8).
    Certificate(Verified<Certificate>),
}

/// A message to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// As the round's leader.
    Proposal(ProposalBody),
    /// A vote.
    Vote(VoteBody),
}

/// Kinds of messages in the order in which a round has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Proposal.
    Proposal,
    /// Prevote.
    Prevote,
    /// Precommit.
    Precommit,
}

/// Where a message stands; a key signs one message per position, in ascending order (I1, I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Era and round.
    pub at: EraRound,
    /// Kind.
    pub kind: Kind,
}

impl Message {
    /// Its position in the height.
    pub fn position(&self) -> Position {
        match self {
            Message::Proposal(body) => Position {
                at: body.at(),
                kind: Kind::Proposal,
            },
            Message::Vote(body) => Position::of_vote(body),
        }
    }
}

impl Position {
    /// The position of a vote.
    pub fn of_vote(body: &VoteBody) -> Position {
        Position {
            at: body.at(),
            kind: match body.step {
                VoteStep::Prevote => Kind::Prevote,
                VoteStep::Precommit => Kind::Precommit,
            },
        }
    }
}

/// What must be on disk, beside the record of the message itself, before the message leaves (S5). The record of block and
/// certificate of the parent (I6) is the driver's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durable {
    /// First message of a round > 0: the votes that let the node in.
    pub entry: Vec<Vote>,
    /// The polka that this message answers or stands on.
    pub polka: Option<Arc<Polka>>,
    /// Precommit for a block: the new lock.
    pub lock: Option<Pinned>,
    /// Proposal, or precommit for a block: this whole block.
    pub block: Option<BlockId>,
}

/// A request to sign. In the order in which they come they are written, signed, sent, and fed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The message.
    pub message: Message,
    /// What must be durable first.
    pub durable: Durable,
}

/// Why a height may have a reason to act that the driver cannot know otherwise (S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// More than a third has voted.
    Votes,
    /// The leader of the current round has proposed.
    Proposal,
}

/// What a height wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A reason to act; the driver answers with `Input::Begin` once min_block_interval is over. At most once per reason.
    Reason(Reason),
    /// This node leads the round and has no valid value: build a fresh block, if S3 lets it, and answer `Input::Built`.
    /// No answer is needed: the propose timer runs as well (V10). It can be answered until the round's propose step ends.
    Build {
        /// For this round.
        round: Round,
    },
    /// Sign this.
    Sign(Sign),
    /// Start a timer.
    Schedule {
        /// Which.
        timer: Timer,
        /// From now, ms.
        after_ms: u64,
    },
    /// A round was entered: exchange vote bitmaps if it is > 0 (S8).
    NewRound {
        /// The round.
        round: Round,
    },
    /// A polka was seen for the first time: keep it (S6), tell peers that lack it.
    Polka(Arc<Polka>),
    /// The valid value changed; the store may keep it with its polka.
    Valid(Pinned),
    /// A leader's proposal or a polka names a block on which there is no verdict: fetch it, judge it, then answer
    /// `Input::Validity`. Comes once per polka and once per proposal; answer it also for a block judged before.
    WantBlock {
        /// The block.
        block: BlockId,
        /// Round of the proposal or polka.
        at: EraRound,
    },
    /// A re-proposal waits for this polka: GetPolka. Once per proposal.
    WantPolka {
        /// Round of the polka.
        at: EraRound,
        /// The block.
        block: BlockId,
    },
    /// Somebody signed two messages at one position.
    Evidence(Box<Evidence>),
    /// The height is decided; every signature in it has been verified. The machine acts no more. The block need not be
    /// held or judged (S10): that is the driver's next step.
    Decided(Box<Certificate>),
}
