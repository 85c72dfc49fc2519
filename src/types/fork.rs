//! Forks and the way out of them (B6): proof that two blocks of one height are decided, and the certificate by which the
//! members that had no part in it agree on the branch that stays. Form only; whether they prove anything is the ledger's
//! question (`ledger::fork`).

use crate::base::bounded::BoundedVec;
use crate::base::limits::VALIDATOR_COUNT_MAX;
use crate::crypto::hash::{Domain, Hash};
use crate::types::block::{Certificate, Header};
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Statement};
use crate::types::polka::Polka;
use serde::{Deserialize, Serialize};

/// One of two blocks decided at one height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The block's header.
    pub header: Header,
    /// Why it is decided.
    pub certificate: Certificate,
}

impl Decision {
    /// The block.
    pub fn block(&self) -> BlockId {
        self.certificate.block
    }
}

/// Two decisions of one height with the same parent: more than a third of the set that signed both broke the rules (S6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkProof {
    /// The one with the lower block id.
    pub first: Decision,
    /// The one with the higher block id.
    pub second: Decision,
}

impl ForkProof {
    /// The proof from two decisions, in its one order.
    pub fn of(a: Decision, b: Decision) -> ForkProof {
        let (first, second) = if a.block() <= b.block() {
            (a, b)
        } else {
            (b, a)
        };
        ForkProof { first, second }
    }

    /// Names the fork. The certificates are no part of it: the same two blocks are the same fork, whoever signed.
    pub fn hash(&self) -> Hash {
        codec::hash_of(
            Domain::ForkProof,
            &(self.first.block(), self.second.block()),
        )
    }

    /// Height of the fork.
    pub fn height(&self) -> Height {
        self.first.header.height
    }

    /// The two blocks.
    pub fn blocks(&self) -> [BlockId; 2] {
        [self.first.block(), self.second.block()]
    }

    /// The decision of `block`.
    pub fn side(&self, block: BlockId) -> Option<&Decision> {
        [&self.first, &self.second]
            .into_iter()
            .find(|side| side.block() == block)
    }

    /// The decision of the lower round, then the other; of one round in the order of block ids.
    pub fn by_round(&self) -> (&Decision, &Decision) {
        let at = |side: &Decision| side.certificate.commit.at;
        if at(&self.second) < at(&self.first) {
            (&self.second, &self.first)
        } else {
            (&self.first, &self.second)
        }
    }
}

/// A polka of a new era, and the header of its block, which names the RecoveryCert that makes it one: why its sender keeps to
/// that certificate (B6 step 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    /// The block's header.
    pub header: Header,
    /// Prevotes of more than two thirds of the set without the culprits that the certificate names.
    pub polka: Polka,
}

/// Agreement of more than two thirds of the members without guilt on the branch that stays (B6 step 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCert {
    /// The fork.
    pub fork: ForkProof,
    /// Era that the fork ended; the next one begins with this certificate.
    pub era: Era,
    /// Attempt, from 0: operators raise it (B6 step 7).
    pub attempt: u32,
    /// The block that stays.
    pub block: BlockId,
    /// Who signed what no honest key signs, ascending offender id.
    pub culprits: BoundedVec<Evidence, VALIDATOR_COUNT_MAX>,
    /// Statements for `block`, ascending masternode id.
    pub statements: BoundedVec<Statement, VALIDATOR_COUNT_MAX>,
}

impl RecoveryCert {
    /// recovery_hash of the first header of the new era (L13): what was agreed, not who happened to prove it. Nodes collect
    /// statements on their own and end the era at once; certificates of the same agreement must be as good as one another.
    pub fn hash(&self) -> Hash {
        let culprits: Vec<MasternodeId> = self.culprits.iter().map(|e| e.offender).collect();
        let agreed = (self.era, self.fork.height(), self.block, culprits);
        codec::hash_of(Domain::Recovery, &agreed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{
        FRAME_POLKA_BYTES, FRAME_PROOF_BYTES, FRAME_RECOVERY_BYTES, FRAME_STATEMENT_BYTES,
    };
    use crate::base::time::WallMs;
    use crate::crypto::keys::{PublicKey, Signature};
    use crate::types::bitmap::Bitmap;
    use crate::types::block::{Commit, HEADER_VERSION};
    use crate::types::masternode::{Offence, StatementBody};
    use crate::types::vote::{Vote, VoteBody, VoteStep};

    fn header(round: u32) -> Header {
        Header {
            version: HEADER_VERSION,
            branch: Branch(0),
            era: Era(0),
            recovery_hash: Hash::ZERO,
            height: Height(7),
            round: Round(round),
            time: WallMs(1),
            parent: BlockId(Hash([1; 32])),
            proposer: MasternodeId(Hash([2; 32])),
            last_commit_hash: Hash::ZERO,
            tx_root: Hash::ZERO,
            slot_root: Hash::ZERO,
            validators_hash: Hash::ZERO,
            next_validators_hash: Hash::ZERO,
            state_root: Hash::ZERO,
            prev_slot_block: BlockId::default(),
            history_root: Hash::ZERO,
        }
    }

    fn decision(round: u32, members: usize) -> Decision {
        let header = header(round);
        let at = EraRound {
            era: Era(0),
            round: Round(round),
        };
        let certificate = Certificate {
            height: header.height,
            block: header.id(),
            commit: Commit {
                at,
                signers: Bitmap::from_ones(members, 0..members),
                signatures: BoundedVec::take_from(vec![Signature([7; 64]); members]),
            },
        };
        Decision {
            header,
            certificate,
        }
    }

    fn evidence(i: usize) -> Evidence {
        let offender = MasternodeId(Hash([i as u8; 32]));
        let at = EraRound::default();
        let vote = |block: u8| Vote {
            body: VoteBody {
                step: VoteStep::Prevote,
                branch: Branch(0),
                era: Era(0),
                height: Height(7),
                round: Round(1),
                valid_round: Some(at),
                block: Some(BlockId(Hash([block; 32]))),
            },
            voter: offender,
            signature: Signature([9; 64]),
        };
        Evidence {
            offender,
            key: PublicKey([i as u8; 32]),
            offence: Offence::Votes(vote(1), vote(2)),
        }
    }

    fn statement() -> Statement {
        Statement {
            body: StatementBody {
                era: Era(0),
                attempt: 0,
                fork: Hash([3; 32]),
                block: BlockId(Hash([4; 32])),
                tip_height: Height(9),
                tip: BlockId(Hash([5; 32])),
            },
            masternode: MasternodeId(Hash([6; 32])),
            signature: Signature([8; 64]),
        }
    }

    fn cert(members: usize, guilty: usize) -> RecoveryCert {
        let fork = ForkProof::of(decision(0, members), decision(1, members));
        let block = fork.first.block();
        let statements = vec![statement(); members - guilty];
        RecoveryCert {
            fork,
            era: Era(0),
            attempt: 0,
            block,
            culprits: BoundedVec::take_from((0..guilty).map(evidence)),
            statements: BoundedVec::take_from(statements),
        }
    }

    #[test]
    fn proofs_of_a_full_set_fit_their_frames() {
        let most = VALIDATOR_COUNT_MAX;
        assert!(codec::encoded_len(&cert(most, 0).fork) <= FRAME_PROOF_BYTES);
        assert!(codec::encoded_len(&statement()) <= FRAME_STATEMENT_BYTES);
        let header = header(0);
        let tie = Tie {
            polka: Polka {
                height: header.height,
                block: header.id(),
                valid_round: Some(EraRound::default()),
                votes: decision(0, most).certificate.commit,
            },
            header,
        };
        assert!(codec::encoded_len(&tie) <= FRAME_POLKA_BYTES);
        for guilty in [0, most / 2, most] {
            assert!(
                codec::encoded_len(&cert(most, guilty)) <= FRAME_RECOVERY_BYTES,
                "B2b: a RecoveryCert of 512 members, {guilty} of them guilty"
            );
        }
    }

    #[test]
    fn certificates_of_one_agreement_have_one_hash() {
        let (all, mut fewer, mut other) = (cert(9, 4), cert(9, 4), cert(9, 3));
        fewer.statements = BoundedVec::take_from(vec![statement(); 4]);
        assert_eq!(all.hash(), fewer.hash(), "L13: whoever collected it");
        assert_ne!(all.hash(), other.hash(), "L13: other culprits");
        other = all.clone();
        other.block = all.fork.second.block();
        assert_ne!(all.hash(), other.hash(), "L13: another branch");
    }

    #[test]
    fn formats_have_their_golden_bytes() {
        let cert = cert(4, 2);
        let bytes = codec::encode(&cert);
        assert_eq!(
            codec::decode::<RecoveryCert>(&bytes, FRAME_RECOVERY_BYTES).unwrap(),
            cert
        );
        let sizes = [
            codec::encoded_len(&cert.fork),
            codec::encoded_len(&statement()),
            bytes.len(),
        ];
        let names = [cert.fork.hash(), cert.hash()].map(|hash| hash.to_string());
        assert_eq!(
            (sizes, names),
            (
                [1406, 208, 2654],
                [
                    "33d652c1b2e26ef149cacdb0ff4da53f6f822dcfa811b17285741dada75e0108".to_string(),
                    "1c9db32555e9982ecd85844afc5b95640adcce0a4c83edd1662c5334c0bcc2bf".to_string(),
                ]
            ),
            "a format change is a version change (L7)"
        );
    }

    #[test]
    fn a_fork_has_one_name() {
        let (a, b) = (decision(0, 4), decision(1, 4));
        let proof = ForkProof::of(a.clone(), b.clone());
        assert_eq!(proof, ForkProof::of(b, a), "the order is that of the ids");
        let (lower, higher) = proof.by_round();
        assert!(lower.certificate.commit.at < higher.certificate.commit.at);
        let mut other = proof.clone();
        other.first.certificate.commit.signatures = BoundedVec::new();
        assert_eq!(
            proof.hash(),
            other.hash(),
            "B6: statements about one fork count together, whoever's certificates they saw"
        );
    }
}
