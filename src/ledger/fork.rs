//! Forks (S6, B6): whether two certificates are one, who is guilty of it, and whether a RecoveryCert ends it. Pure
//! functions of what peers send and of the set that decided the height; signatures are returned as checks.

use crate::crypto::verify::Check;
use crate::ledger::evidence::{self, Pair};
use crate::types::block::CommitError;
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Offence, Statement};
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use crate::types::vote::Vote;
use std::collections::BTreeMap;

/// Why something about a fork proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// Not two blocks of one height on one parent with their own certificates.
    #[error("these are not two blocks of one height, parent and era, each with its certificate")]
    Form,
    /// The headers carry another set than the one that decided the height.
    #[error("the headers do not carry the validator set of their height")]
    Set,
    /// No quorum, or signers that are no members.
    #[error("a certificate: {0}")]
    Commit(#[from] CommitError),
    /// A piece of evidence that proves nothing.
    #[error("a culprit is not proved guilty: {0}")]
    Culprit(&'static str),
    /// Too few culprits for what happens by itself (B6 step 2).
    #[error("the culprits named hold no more than a third: operators decide")]
    TooFewCulprits,
    /// A statement that does not belong.
    #[error("a statement is of another fork, era, attempt or block, or of nobody who may make one")]
    Statement,
    /// Too few statements.
    #[error("the statements are not of more than two thirds of the others")]
    NoMajority,
}

/// Form of a fork proof against the set that decided its height; the signature checks that remain.
pub fn check_proof(
    proof: &ForkProof,
    chain: ChainId,
    set: &ValidatorSet,
) -> Result<Vec<Check>, ForkError> {
    let (a, b) = (&proof.first, &proof.second);
    let own = |side: &Decision| {
        side.header.id() == side.certificate.block
            && side.certificate.height == side.header.height
            && side.certificate.commit.at
                >= EraRound {
                    era: side.header.era,
                    round: side.header.round,
                }
    };
    let one = a.header.height == b.header.height
        && a.header.parent == b.header.parent
        && a.header.branch == b.header.branch
        && a.certificate.commit.at.era == b.certificate.commit.at.era
        && a.block() < b.block();
    if !one || !own(a) || !own(b) {
        return Err(ForkError::Form);
    }
    let hash = set.hash();
    if a.header.validators_hash != hash || b.header.validators_hash != hash {
        return Err(ForkError::Set);
    }
    let branch = a.header.branch;
    let mut checks = a.certificate.checks(chain, branch, set)?;
    checks.extend(b.certificate.checks(chain, branch, set)?);
    Ok(checks)
}

/// What S6 makes of a fork and the polkas at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// Evidence against each culprit, ascending offender id; more than a third of the power.
    Culprits(Vec<Evidence>),
    /// This polka is missing: ask for it.
    Missing {
        /// Its round.
        at: EraRound,
        /// Its block.
        block: BlockId,
    },
}

/// S6: who is guilty of a fork whose certificates hold. `polkas` are of its height and verified.
pub fn attribute(proof: &ForkProof, set: &ValidatorSet, polkas: &[Polka]) -> Attribution {
    let (x, y) = proof.by_round();
    let branch = x.header.branch;
    let first = by_voter(x.certificate.precommits(branch, set));
    let r = x.certificate.commit.at;
    if y.certificate.commit.at == r {
        return both(
            &first,
            &by_voter(y.certificate.precommits(branch, set)),
            set,
            false,
        );
    }
    let polka = |at: EraRound, block: BlockId| {
        polkas
            .iter()
            .find(|p| p.at() == at && p.block == block && p.height == proof.height())
    };
    let mut at = y.certificate.commit.at;
    loop {
        let block = y.block();
        let Some(found) = polka(at, block) else {
            return Attribution::Missing { at, block };
        };
        match found.valid_round {
            // Down to the next polka; rounds only fall, as a valid round is below its own.
            Some(valid_round) if valid_round > r => at = valid_round,
            Some(valid_round) if valid_round == r => {
                let other = x.block();
                let (Some(for_x), Some(for_y)) = (polka(r, other), polka(r, block)) else {
                    let block = if polka(r, block).is_some() {
                        other
                    } else {
                        block
                    };
                    return Attribution::Missing { at: r, block };
                };
                let votes = |p: &Polka| by_voter(p.prevotes(branch, set));
                return both(&votes(for_x), &votes(for_y), set, false);
            }
            _ => return both(&first, &by_voter(found.prevotes(branch, set)), set, true),
        }
    }
}

fn by_voter(votes: Vec<Vote>) -> BTreeMap<MasternodeId, Vote> {
    votes.into_iter().map(|vote| (vote.voter, vote)).collect()
}

/// Evidence against everybody who signed on both sides.
fn both(
    first: &BTreeMap<MasternodeId, Vote>,
    then: &BTreeMap<MasternodeId, Vote>,
    set: &ValidatorSet,
    amnesia: bool,
) -> Attribution {
    let pairs = first
        .iter()
        .filter_map(|(id, a)| Some((id, a, then.get(id)?)));
    let evidence = pairs.filter_map(|(id, a, b)| {
        let (a, b) = (a.clone(), b.clone());
        let offence = match amnesia {
            true => Offence::Amnesia(a, b),
            false if a.body <= b.body => Offence::Votes(a, b),
            false => Offence::Votes(b, a),
        };
        set.get(id).map(|member| Evidence {
            offender: *id,
            key: member.operator,
            offence,
        })
    });
    Attribution::Culprits(evidence.collect())
}

/// Power of those that evidence names.
pub fn power_of(culprits: &[Evidence], set: &ValidatorSet) -> Power {
    set.power_of(culprits.iter().filter_map(|e| set.index_of(&e.offender)))
}

/// Form of a statement about a fork by a member that may make one; its signature check.
pub fn check_statement(
    statement: &Statement,
    proof: &ForkProof,
    chain: ChainId,
    set: &ValidatorSet,
) -> Result<Check, ForkError> {
    let body = &statement.body;
    let about = body.fork == proof.hash() && proof.blocks().contains(&body.block);
    let member = set.get(&statement.masternode).filter(|_| about);
    let member = member.ok_or(ForkError::Statement)?;
    Ok(Check {
        key: member.operator,
        message: body.signing_hash(chain),
        signature: statement.signature,
    })
}

/// Statements for one block by those who are not guilty: whether they are a majority of R (B6 step 4).
pub fn is_majority<'a>(
    statements: impl Iterator<Item = &'a Statement>,
    culprits: &[Evidence],
    set: &ValidatorSet,
) -> bool {
    let guilty = power_of(culprits, set);
    let rest = Power(set.total().0 - guilty.0);
    let innocent = |id: &MasternodeId| culprits.iter().all(|e| e.offender != *id);
    let stated = statements.filter(|s| innocent(&s.masternode));
    let stated = set.power_of(stated.filter_map(|s| set.index_of(&s.masternode)));
    is_quorum(stated, rest)
}

/// Whether a RecoveryCert ends its fork, against the set that decided the fork's height; the signature checks that remain.
pub fn check_recovery(
    cert: &RecoveryCert,
    chain: ChainId,
    set: &ValidatorSet,
) -> Result<Vec<Check>, ForkError> {
    let mut checks = check_proof(&cert.fork, chain, set)?;
    if cert.fork.side(cert.block).is_none() || cert.fork.first.certificate.commit.at.era > cert.era
    {
        return Err(ForkError::Form);
    }
    let ascending = cert.culprits.windows(2);
    if ascending
        .into_iter()
        .any(|p| p[0].offender >= p[1].offender)
    {
        return Err(ForkError::Culprit("they are not in ascending order"));
    }
    for culprit in &cert.culprits {
        let member = set.get(&culprit.offender);
        let member = member.filter(|m| m.operator == culprit.key);
        let member = member.ok_or(ForkError::Culprit("it is no member of the set"))?;
        let pair = evidence::pair(culprit, chain).map_err(ForkError::Culprit)?;
        if pair.height != Some(cert.fork.height()) {
            return Err(ForkError::Culprit("the evidence is about another height"));
        }
        checks.extend(pair.checks(member.operator));
    }
    // Operators may agree on what nobody can prove (B6 step 7); nothing happens by itself without proof of a third.
    if cert.attempt == 0 && !is_over_third(power_of(&cert.culprits, set), set.total()) {
        return Err(ForkError::TooFewCulprits);
    }
    let ascending = cert.statements.windows(2);
    if ascending
        .into_iter()
        .any(|p| p[0].masternode >= p[1].masternode)
    {
        return Err(ForkError::Statement);
    }
    for statement in &cert.statements {
        let body = &statement.body;
        if (body.era, body.attempt, body.block) != (cert.era, cert.attempt, cert.block) {
            return Err(ForkError::Statement);
        }
        checks.push(check_statement(statement, &cert.fork, chain, set)?);
    }
    match is_majority(cert.statements.iter(), &cert.culprits, set) {
        true => Ok(checks),
        false => Err(ForkError::NoMajority),
    }
}

impl Pair {
    /// Both signatures under one key.
    fn checks(&self, key: crate::crypto::keys::PublicKey) -> [Check; 2] {
        self.signed.map(|(message, signature)| Check {
            key,
            message,
            signature,
        })
    }
}
