//! What the signer store holds (S5), and the keys under which it does. Keys sort by kind, then height.
//!
//! ```text
//! w                                         high-water mark: greatest signed position
//! m height(8) era(4) round(4) step(1)       a message this node signed
//! l height(8)                               the lock: block and round
//! v height(8)                               the valid block: block and round
//! p height(8) era(4) round(4) block(32)     a polka; kept for max_reorg heights (S6)
//! e height(8)                               what let this node into its latest round > 0
//! b height(8) block(32)                     a whole block
//! c height(8)                               a certificate
//! x offender(32)                            evidence
//! f era(4)                                  the fork that ended the era, and the branch held (B6); kept
//! s era(4) attempt(4)                       an own statement about it; kept
//! r era(4)                                  the RecoveryCert that ended the era; kept
//! d                                         a fork too deep to go back from; kept until its cause is gone
//! a era(4) hash(32)                         another RecoveryCert of the era; kept, a few
//! ```
//! Numbers are big-endian; values are canonical encodings. The store itself knows neither keys nor values.

use crate::types::block::{Block, Certificate};
use crate::types::codec;
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Statement};
use crate::types::polka::Polka;
use crate::types::vote::{SignedProposal, Vote, VoteStep};
use serde::{Deserialize, Serialize};

/// Greatest encoding of one record: a whole block with room for its parts.
pub const RECORD_BYTES_MAX: usize = crate::base::limits::FRAME_BLOCK_BYTES;

/// Where in a round a message stands, in signing order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Proposal.
    Propose,
    /// Prevote.
    Prevote,
    /// Precommit.
    Precommit,
}

impl From<VoteStep> for Step {
    fn from(step: VoteStep) -> Step {
        match step {
            VoteStep::Prevote => Step::Prevote,
            VoteStep::Precommit => Step::Precommit,
        }
    }
}

/// A signed position: one message of one key at most (I1), never decreasing (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Era.
    pub era: Era,
    /// Height.
    pub height: Height,
    /// Round.
    pub round: Round,
    /// Step.
    pub step: Step,
}

/// A fork as this node found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRecord {
    /// Era that it ends.
    pub era: Era,
    /// Proof of it.
    pub proof: ForkProof,
    /// The block of the two that this node had decided.
    pub held: Option<BlockId>,
}

/// A fork below what can be taken back: two decisions of one height, each with a certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeepRecord {
    /// What this node decided.
    pub own: Decision,
    /// What others decided.
    pub other: Decision,
    /// The lowest height at which the two chains may differ.
    pub from: Height,
}

/// One thing to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The greatest signed position.
    HighWater(Position),
    /// A signed proposal.
    Proposal(SignedProposal),
    /// A signed vote.
    Vote(Vote),
    /// The lock of a height.
    Lock(Height, BlockId, EraRound),
    /// The valid block of a height.
    Valid(Height, BlockId, EraRound),
    /// A polka.
    Polka(Polka),
    /// What let this node into a round > 0.
    Entry(Height, EraRound, Vec<Vote>),
    /// A whole block.
    Block(Box<Block>),
    /// A certificate.
    Certificate(Certificate),
    /// Evidence.
    Evidence(Box<Evidence>),
    /// A fork.
    Fork(Box<ForkRecord>),
    /// An own statement about a fork.
    Statement(Statement),
    /// How an era ended.
    Recovery(Box<RecoveryCert>),
    /// A fork that no node goes back from by itself.
    Deep(Box<DeepRecord>),
    /// Another certificate by which it could have ended.
    Other(Box<RecoveryCert>),
}

/// A stored record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable record of kind '{kind}' in the signer store: {why}")]
pub struct RecordError {
    /// First byte of the key.
    pub kind: char,
    /// What is wrong.
    pub why: String,
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![kind];
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

fn at_bytes(at: EraRound) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&at.era.0.to_be_bytes());
    out[4..].copy_from_slice(&at.round.0.to_be_bytes());
    out
}

impl Record {
    /// Its key.
    pub fn key(&self) -> Vec<u8> {
        let height = |h: &Height| h.0.to_be_bytes();
        let message =
            |h: &Height, at, step: Step| key(b'm', &[&height(h), &at_bytes(at), &[step as u8]]);
        match self {
            Record::HighWater(_) => key(b'w', &[]),
            Record::Proposal(p) => message(&p.body.height, p.body.at(), Step::Propose),
            Record::Vote(v) => message(&v.body.height, v.body.at(), v.body.step.into()),
            Record::Lock(h, ..) => key(b'l', &[&height(h)]),
            Record::Valid(h, ..) => key(b'v', &[&height(h)]),
            Record::Polka(p) => key(b'p', &[&height(&p.height), &at_bytes(p.at()), &p.block.0.0]),
            Record::Entry(h, ..) => key(b'e', &[&height(h)]),
            Record::Block(b) => key(b'b', &[&height(&b.header.height), &b.id().0.0]),
            Record::Certificate(c) => key(b'c', &[&height(&c.height)]),
            Record::Evidence(e) => key(b'x', &[&e.offender.0.0]),
            Record::Fork(f) => key(b'f', &[&f.era.0.to_be_bytes()]),
            Record::Statement(s) => {
                let (era, attempt) = (s.body.era.0, s.body.attempt);
                key(b's', &[&era.to_be_bytes(), &attempt.to_be_bytes()])
            }
            Record::Recovery(r) => key(b'r', &[&r.era.0.to_be_bytes()]),
            Record::Deep(_) => key(b'd', &[]),
            Record::Other(r) => key(b'a', &[&r.era.0.to_be_bytes(), &r.hash().0]),
        }
    }

    /// Its value.
    pub fn value(&self) -> Vec<u8> {
        match self {
            Record::HighWater(position) => codec::encode(position),
            Record::Proposal(p) => codec::encode(p),
            Record::Vote(v) => codec::encode(v),
            Record::Lock(h, block, at) | Record::Valid(h, block, at) => {
                codec::encode(&(h, block, at))
            }
            Record::Polka(p) => codec::encode(p),
            Record::Entry(h, at, votes) => codec::encode(&(h, at, votes)),
            Record::Block(b) => codec::encode(b.as_ref()),
            Record::Certificate(c) => codec::encode(c),
            Record::Evidence(e) => codec::encode(e.as_ref()),
            Record::Fork(f) => codec::encode(f.as_ref()),
            Record::Statement(s) => codec::encode(s),
            Record::Recovery(r) | Record::Other(r) => codec::encode(r.as_ref()),
            Record::Deep(d) => codec::encode(d.as_ref()),
        }
    }

    /// Key and value for a write.
    pub fn put(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (self.key(), Some(self.value()))
    }

    /// Reads a record back.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Record, RecordError> {
        fn get<T: serde::de::DeserializeOwned>(kind: u8, value: &[u8]) -> Result<T, RecordError> {
            let decoded = codec::decode(value, RECORD_BYTES_MAX);
            decoded.map_err(|e| RecordError {
                kind: char::from(kind),
                why: e.to_string(),
            })
        }
        let kind = *key.first().unwrap_or(&b'?');
        let record = match kind {
            b'w' => Record::HighWater(get(kind, value)?),
            b'm' if key.last() == Some(&(Step::Propose as u8)) => {
                Record::Proposal(get(kind, value)?)
            }
            b'm' => Record::Vote(get(kind, value)?),
            b'l' => get(kind, value).map(|(h, block, at)| Record::Lock(h, block, at))?,
            b'v' => get(kind, value).map(|(h, block, at)| Record::Valid(h, block, at))?,
            b'p' => Record::Polka(get(kind, value)?),
            b'e' => get(kind, value).map(|(h, at, votes)| Record::Entry(h, at, votes))?,
            b'b' => Record::Block(Box::new(get(kind, value)?)),
            b'c' => Record::Certificate(get(kind, value)?),
            b'x' => Record::Evidence(Box::new(get(kind, value)?)),
            b'f' => Record::Fork(Box::new(get(kind, value)?)),
            b's' => Record::Statement(get(kind, value)?),
            b'r' => Record::Recovery(Box::new(get(kind, value)?)),
            b'd' => Record::Deep(Box::new(get(kind, value)?)),
            b'a' => Record::Other(Box::new(get(kind, value)?)),
            _ => {
                return Err(RecordError {
                    kind: char::from(kind),
                    why: "unknown kind".into(),
                });
            }
        };
        if record.key() != key {
            return Err(RecordError {
                kind: char::from(kind),
                why: "it does not belong under its key".into(),
            });
        }
        Ok(record)
    }
}

/// Whether a record tells of a fork: what a node without a signer store keeps too, and what a new store takes over.
pub fn is_of_forks(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'f' | b's' | b'r' | b'a' | b'd'))
}

/// The height in a record's key, `None` for those that belong to no height.
pub fn height_of_key(key: &[u8]) -> Option<Height> {
    match key.first()? {
        b'w' | b'x' | b'f' | b's' | b'r' | b'a' | b'd' => None,
        _ => Some(Height(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?))),
    }
}

/// Whether a record may go once heights up to `durable` are durable in the ledger and `polkas_below` are out of reach.
pub fn is_obsolete(key: &[u8], durable: Height, polkas_below: Height) -> bool {
    match (key.first(), height_of_key(key)) {
        (Some(b'p'), Some(height)) => height < polkas_below,
        (_, Some(height)) => height <= durable,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::Signature;
    use crate::types::vote::VoteBody;

    #[test]
    fn records_read_back_and_sort_by_height() {
        let vote = |height, step| Vote {
            body: VoteBody {
                step,
                branch: Branch(0),
                era: Era(0),
                height: Height(height),
                round: Round(1),
                valid_round: None,
                block: None,
            },
            voter: MasternodeId::default(),
            signature: Signature([0; 64]),
        };
        let position = Position {
            era: Era(0),
            height: Height(3),
            round: Round(0),
            step: Step::Precommit,
        };
        let records = [
            Record::HighWater(position),
            Record::Vote(vote(255, VoteStep::Prevote)),
            Record::Vote(vote(256, VoteStep::Precommit)),
            Record::Lock(Height(1), BlockId(Hash([1; 32])), EraRound::default()),
            Record::Entry(
                Height(1),
                EraRound::default(),
                vec![vote(1, VoteStep::Precommit)],
            ),
        ];
        for record in &records {
            assert_eq!(
                Record::read(&record.key(), &record.value()).as_ref(),
                Ok(record)
            );
        }
        assert!(
            records[1].key() < records[2].key(),
            "big-endian heights sort"
        );
        assert!(
            Record::read(&records[1].key(), &records[2].value()).is_err(),
            "a record under a foreign key"
        );
        assert!(is_obsolete(&records[1].key(), Height(255), Height(0)));
        assert!(!is_obsolete(&records[2].key(), Height(255), Height(0)));
        assert!(
            !is_obsolete(&records[0].key(), Height(900), Height(900)),
            "the high-water mark stays"
        );
    }
}
