//! What is known to be signed at the height of a fork, from whatever certificate, polka, vote or proof it came: a culprit that
//! one certificate hides stands in another (S6, B6 step 2). Input: votes and evidence whose signatures hold. Output: evidence
//! against everybody who signed what no honest key signs, and the widest certificate of a block that can be put together.
//!
//! Memory: [`VOTES_PER_MEMBER_MAX`] votes and one piece of evidence for each member. Who fills its own share with votes that
//! contradict nothing hides nothing: it spends them at one node, and any other that holds the contradiction tells it.

use crate::base::bounded::BoundedVec;
use crate::base::limits::Size;
use crate::consensus::evidence;
use crate::crypto::verify::Check;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Certificate, Commit};
use crate::types::fork::{Decision, ForkProof};
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Offence};
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use crate::types::vote::Vote;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Votes kept of one member; later ones are compared and not kept.
const VOTES_PER_MEMBER_MAX: usize = 8;

/// See the module.
pub(in crate::replica) struct Pool {
    height: Height,
    era: Era,
    branch: Branch,
    set: Arc<ValidatorSet>,
    votes: BTreeMap<MasternodeId, Vec<Vote>>,
    found: BTreeMap<MasternodeId, Evidence>,
}

impl Pool {
    /// What a proof shows, under the set that decided its height.
    pub(super) fn new(proof: &ForkProof, set: Arc<ValidatorSet>) -> Pool {
        let mut pool = Pool {
            height: proof.height(),
            era: proof.first.certificate.commit.at.era,
            branch: proof.first.header.branch,
            set,
            votes: BTreeMap::new(),
            found: BTreeMap::new(),
        };
        pool.proof(proof);
        pool
    }

    /// A vote whose signature holds. Of another height, era or rule set, or of nobody in the set, it says nothing.
    pub(super) fn vote(&mut self, vote: Vote) {
        let body = &vote.body;
        let here = (body.height, body.era, body.branch) == (self.height, self.era, self.branch);
        if !here || !body.is_well_formed() || self.set.get(&vote.voter).is_none() {
            return;
        }
        let held = self.votes.entry(vote.voter).or_default();
        if held.iter().any(|held| held.body == vote.body) {
            return;
        }
        if !self.found.contains_key(&vote.voter) {
            let same = |held: &&Vote| (held.body.at(), held.body.step) == (body.at(), body.step);
            let evidence = match held.iter().find(same) {
                Some(first) => evidence::votes(&self.set, first.clone(), vote.clone()),
                None => evidence::amnesia(&self.set, held.iter(), &vote),
            };
            self.found.extend(evidence.map(|e| (vote.voter, e)));
        }
        if held.len() < VOTES_PER_MEMBER_MAX {
            held.push(vote);
        }
    }

    /// The precommits of a certificate that holds.
    pub(super) fn certificate(&mut self, certificate: &Certificate) {
        let votes = certificate.precommits(self.branch, &self.set);
        votes.into_iter().for_each(|vote| self.vote(vote));
    }

    /// Both certificates of a proof that holds.
    pub(super) fn proof(&mut self, proof: &ForkProof) {
        self.certificate(&proof.first.certificate);
        self.certificate(&proof.second.certificate);
    }

    /// The prevotes of a polka that holds.
    pub(super) fn polka(&mut self, polka: &Polka) {
        let votes = polka.prevotes(self.branch, &self.set);
        votes.into_iter().for_each(|vote| self.vote(vote));
    }

    /// Whether evidence is about this height, against a member, by its key, and news; whoever wants to end an era with it is
    /// asked the same (`ledger::fork::check_recovery`).
    pub(super) fn wants(&self, evidence: &Evidence) -> bool {
        let height = match &evidence.offence {
            Offence::Proposals(a, _) => a.body.height,
            Offence::Votes(a, _) | Offence::Amnesia(a, _) => a.body.height,
            // It names no height that can be believed.
            Offence::Statements(..) => return false,
        };
        let member = self.set.get(&evidence.offender);
        height == self.height
            && member.is_some_and(|m| m.operator == evidence.key)
            && !self.is_guilty(&evidence.offender)
    }

    /// Evidence whose signatures hold.
    pub(super) fn evidence(&mut self, evidence: &Evidence) {
        if self.wants(evidence) {
            self.found.insert(evidence.offender, evidence.clone());
        }
    }

    /// Whether a proof of the same fork shows a vote that is neither held nor beyond what is kept.
    pub(super) fn lacks(&self, proof: &ForkProof) -> bool {
        let lacks = |certificate: &Certificate| {
            let votes = certificate.precommits(self.branch, &self.set);
            votes.iter().any(|vote| match self.votes.get(&vote.voter) {
                None => true,
                Some(held) => {
                    held.len() < VOTES_PER_MEMBER_MAX && held.iter().all(|h| h.body != vote.body)
                }
            })
        };
        lacks(&proof.first.certificate) || lacks(&proof.second.certificate)
    }

    /// Of the checks of a proof (`ledger::fork::check_proof`), those of votes that are not held: what held before holds again.
    pub(super) fn unknown(&self, proof: &ForkProof, checks: Vec<Check>) -> Vec<Check> {
        let votes = |certificate: &Certificate| certificate.precommits(self.branch, &self.set);
        let first = votes(&proof.first.certificate).into_iter();
        let votes: Vec<Vote> = first.chain(votes(&proof.second.certificate)).collect();
        if votes.len() != checks.len() {
            return checks;
        }
        let held = |vote: &Vote| {
            self.votes
                .get(&vote.voter)
                .is_some_and(|h| h.contains(vote))
        };
        let pairs = votes.iter().zip(checks);
        pairs.filter(|(v, _)| !held(v)).map(|(_, c)| c).collect()
    }

    /// A proof of the same fork with all precommits that are held for its two blocks in the rounds of its certificates.
    pub(super) fn widest(&self, proof: &ForkProof) -> ForkProof {
        let wider = |side: &Decision| Decision {
            header: side.header.clone(),
            certificate: self.widen(&side.certificate),
        };
        ForkProof {
            first: wider(&proof.first),
            second: wider(&proof.second),
        }
    }

    fn widen(&self, certificate: &Certificate) -> Certificate {
        let at = certificate.commit.at;
        let body = certificate
            .commit
            .body(self.branch, self.height, certificate.block);
        let members = self.set.members().iter().enumerate();
        let signed = members.filter_map(|(i, member)| {
            let held = self.votes.get(&member.id)?;
            let vote = held.iter().find(|vote| vote.body == body)?;
            Some((i, vote.signature))
        });
        let (signers, signatures): (Vec<_>, Vec<_>) = signed.unzip();
        Certificate {
            height: certificate.height,
            block: certificate.block,
            commit: Commit {
                at,
                signers: Bitmap::from_ones(self.set.len(), signers),
                signatures: BoundedVec::take_from(signatures),
            },
        }
    }

    /// Everybody against whom there is evidence, ascending offender id.
    pub(super) fn culprits(&self) -> impl Iterator<Item = &Evidence> {
        self.found.values()
    }

    /// How many that are.
    pub(super) fn guilty(&self) -> usize {
        self.found.len()
    }

    /// Whether there is evidence against a member.
    pub(super) fn is_guilty(&self, id: &MasternodeId) -> bool {
        self.found.contains_key(id)
    }

    /// How full its containers are.
    pub(super) fn sizes(&self) -> [Size; 2] {
        let (members, votes) = (self.set.len(), self.votes.values().map(Vec::len).sum());
        let most = members * VOTES_PER_MEMBER_MAX;
        [
            Size::new("votes of a fork's height", votes, most),
            Size::new("culprits of a fork", self.found.len(), members),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::WallMs;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::{PublicKey, Signature};
    use crate::types::block::{HEADER_VERSION, Header};
    use crate::types::validators::Validator;
    use crate::types::vote::{VoteBody, VoteStep};

    fn id(i: usize) -> MasternodeId {
        MasternodeId(Hash([i as u8 + 1; 32]))
    }

    fn set() -> Arc<ValidatorSet> {
        let member = |i: usize| Validator {
            id: id(i),
            operator: PublicKey([i as u8 + 1; 32]),
            power: Power(1),
        };
        Arc::new(ValidatorSet::new((0..10).map(member).collect()).unwrap())
    }

    fn at(round: u32) -> EraRound {
        EraRound {
            era: Era(0),
            round: Round(round),
        }
    }

    fn commit(round: u32, signers: &[usize]) -> Commit {
        let signatures = signers.iter().map(|i| Signature([*i as u8; 64]));
        Commit {
            at: at(round),
            signers: Bitmap::from_ones(10, signers.iter().copied()),
            signatures: BoundedVec::take_from(signatures),
        }
    }

    fn decision(tag: u8, round: u32, signers: &[usize]) -> Decision {
        let header = Header {
            version: HEADER_VERSION,
            branch: Branch(0),
            era: Era(0),
            recovery_hash: Hash::ZERO,
            height: Height(5),
            round: Round(0),
            time: WallMs(1),
            parent: BlockId(Hash([1; 32])),
            proposer: id(0),
            last_commit_hash: Hash::ZERO,
            tx_root: Hash([tag; 32]),
            slot_root: Hash::ZERO,
            validators_hash: set().hash(),
            next_validators_hash: set().hash(),
            state_root: Hash::ZERO,
            prev_slot_block: BlockId::default(),
            history_root: Hash::ZERO,
        };
        let certificate = Certificate {
            height: header.height,
            block: header.id(),
            commit: commit(round, signers),
        };
        Decision {
            header,
            certificate,
        }
    }

    fn named(pool: &Pool) -> Vec<MasternodeId> {
        pool.culprits().map(|e| e.offender).collect()
    }

    const X: [usize; 7] = [0, 1, 2, 4, 5, 6, 7];
    const OTHER_X: [usize; 7] = [0, 1, 2, 4, 5, 8, 9];
    const Y: [usize; 7] = [3, 4, 5, 6, 7, 8, 9];

    #[test]
    fn another_certificate_of_the_same_block_shows_whom_the_first_hides() {
        let proof = |x: &[usize]| ForkProof::of(decision(1, 0, x), decision(2, 0, &Y));
        let mut pool = Pool::new(&proof(&X), set());
        assert_eq!(named(&pool), [4, 5, 6, 7].map(id));
        assert!(!pool.lacks(&proof(&X)), "what is held is not checked again");
        assert!(pool.lacks(&proof(&OTHER_X)));
        let check = |signature: &Signature| Check {
            key: PublicKey([0; 32]),
            message: Hash::ZERO,
            signature: *signature,
        };
        let unknown = |pool: &Pool, proof: &ForkProof| {
            let sides = [&proof.first, &proof.second];
            let signatures = sides.map(|s| s.certificate.commit.signatures.to_vec());
            let checks = signatures.concat().iter().map(check).collect();
            pool.unknown(proof, checks).len()
        };
        assert_eq!(unknown(&pool, &proof(&OTHER_X)), 2, "8 and 9 are new");
        let mut forged = proof(&OTHER_X);
        for side in [&mut forged.first, &mut forged.second] {
            let signatures = [Signature([77; 64]); 7];
            side.certificate.commit.signatures = BoundedVec::take_from(signatures);
        }
        assert_eq!(
            unknown(&pool, &forged),
            14,
            "another signature is another vote"
        );
        pool.proof(&proof(&OTHER_X));
        assert_eq!(named(&pool), [4, 5, 6, 7, 8, 9].map(id), "B6.2");
        let widest = pool.widest(&proof(&X));
        let x = widest.side(decision(1, 0, &X).block()).unwrap();
        let signers: Vec<usize> = x.certificate.commit.signers.ones().collect();
        assert_eq!(signers, [0, 1, 2, 4, 5, 6, 7, 8, 9], "told as one proof");
        assert_eq!(x.certificate.commit.signatures[7], Signature([8; 64]));
        assert_eq!(widest.hash(), proof(&X).hash(), "it is the same fork");
    }

    #[test]
    fn every_kind_of_contradiction_names_its_signer() {
        let (x, y) = (decision(1, 0, &X), decision(2, 1, &Y));
        let mut pool = Pool::new(&ForkProof::of(x.clone(), y.clone()), set());
        assert!(named(&pool).is_empty(), "two rounds alone prove nothing");
        let polka = |round, block, valid_round, signers: &[usize]| Polka {
            height: Height(5),
            block,
            valid_round,
            votes: commit(round, signers),
        };
        pool.polka(&polka(1, y.block(), None, &[3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(named(&pool), [4, 5, 6, 7].map(id), "S6: amnesia");
        pool.polka(&polka(1, x.block(), Some(at(0)), &[0, 1, 2, 4, 5, 8, 9]));
        assert_eq!(named(&pool), [4, 5, 6, 7, 8, 9].map(id), "two prevotes");
        let vote = |voter: usize, height, block: u8| Vote {
            body: VoteBody {
                step: VoteStep::Precommit,
                branch: Branch(0),
                era: Era(0),
                height: Height(height),
                round: Round(0),
                valid_round: None,
                block: Some(BlockId(Hash([block; 32]))),
            },
            voter: id(voter),
            signature: Signature([0; 64]),
        };
        let told = |height| Evidence {
            offender: id(3),
            key: PublicKey([4; 32]),
            offence: Offence::Votes(vote(3, height, 1), vote(3, height, 2)),
        };
        pool.evidence(&told(6));
        assert!(!pool.is_guilty(&id(3)), "B6: evidence of another height");
        pool.evidence(&Evidence {
            key: PublicKey([9; 32]),
            ..told(5)
        });
        assert!(!pool.is_guilty(&id(3)), "B6: of a key that decided nothing");
        pool.evidence(&told(5));
        assert!(pool.is_guilty(&id(3)), "M7: found or told elsewhere");
        pool.vote(vote(0, 5, 9));
        assert!(pool.is_guilty(&id(0)), "a vote that came alone");
        pool.vote(vote(1, 6, 9));
        assert!(!pool.is_guilty(&id(1)), "a vote of another height");
    }

    #[test]
    fn a_member_that_votes_for_ever_fills_its_own_share_only() {
        let proof = ForkProof::of(decision(1, 0, &X), decision(2, 0, &Y));
        let mut pool = Pool::new(&proof, set());
        for round in 10..100 {
            let widened = decision(1, round, &[0, 1, 2, 3, 4, 5, 6]);
            pool.certificate(&widened.certificate);
        }
        assert!(pool.votes.values().all(|v| v.len() <= VOTES_PER_MEMBER_MAX));
        let again = ForkProof::of(decision(1, 500, &[0, 1, 2, 3, 4, 5, 6]), decision(2, 0, &Y));
        assert!(!pool.lacks(&again), "nothing more of them is asked for");
    }
}
