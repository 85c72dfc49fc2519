//! Finality proofs (S10): a transaction's place in a block, the block's header, its certificate, and the way from the
//! genesis to the set that signed it. Checking one needs the genesis and nothing else: no network, no clock, no disk.
//!
//! The way may also begin at a block that the verifier vouches for (F2: keys of long ago may have been sold, so an old genesis
//! proves less and less). A proof made for that begins with the header of this block and the set it names.
//!
//! As JSON each part is the lower-case hex of its canonical encoding, and what stands there for people (txid, height, ...) is
//! checked against the parts, so that any single changed byte is refused. A step is a slot header that changes the
//! validator set, its certificate by the old set, and the new set; steps ascend. What is proved is inclusion, not that an
//! output is unspent.

use crate::base::hex;
use crate::base::limits::{FRAME_CERTIFICATE_BYTES, FRAME_RECOVERY_BYTES};
use crate::base::time::WallMs;
use crate::crypto::merkle::{MerkleProof, TX_TREE};
use crate::crypto::verify::verify_all;
use crate::ledger::registry::Registry;
use crate::rpc::proof_era::Walk;
pub use crate::rpc::proof_make::{make, start_at};
use crate::types::block::{Certificate, CommitError, HEADER_VERSION, Header, tx_leaf};
use crate::types::codec;
use crate::types::fork::RecoveryCert;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The format's name; another format is another name.
pub const FORMAT: &str = "timecoin-finality-proof-1";
/// Bytes of a proof as JSON.
pub const PROOF_BYTES_MAX: usize = 64 << 20;
/// Changes of the validator set in one proof.
pub const STEP_COUNT_MAX: usize = 4_096;

const HEADER_BYTES_MAX: usize = 4_096;
const MERKLE_BYTES_MAX: usize = 4_096;
const SET_BYTES_MAX: usize = 64 * 1_024;

/// A change of the validator set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The slot header that changes it.
    pub header: Header,
    /// By the set before.
    pub certificate: Certificate,
    /// The set after.
    pub next: ValidatorSet,
}

/// A block that is not the genesis, from which a proof begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its header.
    pub header: Header,
    /// The set that decides the next height.
    pub next: ValidatorSet,
}

/// A block that the verifier vouches for.
pub type Trusted = (Height, BlockId);

/// Everything needed to see that a transaction is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The network.
    pub chain: ChainId,
    /// Where the steps begin; `None` is the genesis.
    pub start: Option<Start>,
    /// The transaction.
    pub txid: Txid,
    /// With its witnesses.
    pub wtxid: Wtxid,
    /// Its place in the block.
    pub merkle: MerkleProof,
    /// The block's header.
    pub header: Header,
    /// The precommits that decide the block.
    pub certificate: Certificate,
    /// The set that signed them.
    pub validators: ValidatorSet,
    /// From the set at the start to `validators`.
    pub steps: Vec<Step>,
    /// What began the eras on the way (B6), ascending.
    pub recoveries: Vec<RecoveryCert>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not JSON of this format.
    #[error("not a finality proof: {0}")]
    Format(String),
    /// A part does not decode.
    #[error("the proof's {part} is malformed: {reason}")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What stands there for people is not what the parts say.
    #[error("the proof contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Another network.
    #[error("the proof is for chain {found}, the genesis is of chain {wanted}")]
    OtherChain {
        /// Chain of the proof.
        found: ChainId,
        /// Chain of the genesis.
        wanted: ChainId,
    },
    /// A rule this software does not know.
    #[error("block {0} has a header version this software does not know; use a newer one")]
    Version(Height),
    /// The transaction is not in the block.
    #[error("the transaction is not in the block")]
    NotIncluded,
    /// The set does not decide this height.
    #[error("the validators given are not those of height {0}")]
    OtherSet(Height),
    /// The certificate does not decide the block.
    #[error("the certificate of height {height} decides nothing: {reason}")]
    Certificate {
        /// Of which block.
        height: Height,
        /// What is wrong.
        reason: String,
    },
    /// It begins at a block that nobody has vouched for.
    #[error(
        "the proof begins at block {0}:{1}, which the genesis says nothing about; if you know from elsewhere that this block is final, say --trusted {0}:{1}"
    )]
    Unvouched(Height, BlockId),
    /// The block that is vouched for does not stand in it.
    #[error(
        "the trusted block {0}:{1} does not stand in the proof; fetch one that begins there (proof export --trusted), or leave --trusted out"
    )]
    NoRoot(Height, BlockId),
    /// A fork lies on the way.
    #[error("block {0} was decided in era {1}, and the proof does not show how that era began")]
    Era(Height, Era),
    /// What began an era does not hold.
    #[error("the end of the fork at height {0} is not proved: {1}")]
    Recovery(Height, String),
    /// Steps are not ascending, or lead past the block.
    #[error("the changes of the validator set are out of order at height {0}")]
    Order(Height),
}

/// What a good proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The transaction.
    pub txid: Txid,
    /// With its witnesses.
    pub wtxid: Wtxid,
    /// Height of its block.
    pub height: Height,
    /// The block.
    pub block: BlockId,
    /// The block's time.
    pub time: WallMs,
    /// Power that signed, and power of the set.
    pub signed: Power,
    /// See `signed`.
    pub total: Power,
    /// Changes of the validator set on the way.
    pub step_count: usize,
    /// The root that was trusted: a block, or at height 0 the genesis. How old it is, the caller's clock says.
    pub root: Trusted,
    /// Time of the root.
    pub root_time: WallMs,
    /// Age in ms up to which a root is worth its name (F2); 0: any.
    pub trusting_ms: u64,
}

impl Verdict {
    /// For people and programs.
    pub fn to_json(&self) -> Value {
        json!({
            "valid": true,
            "txid": self.txid.to_string(),
            "wtxid": self.wtxid.to_string(),
            "height": self.height.0,
            "blockhash": self.block.to_string(),
            "time": self.time.0 / 1_000,
            "time_ms": self.time.0,
            "signed_power": self.signed.0,
            "total_power": self.total.0,
            "steps": self.step_count,
            "root": self.root_text(),
            "root_time_ms": self.root_time.0,
            "trusting_period_ms": self.trusting_ms,
        })
    }

    /// The root in words.
    pub fn root_text(&self) -> String {
        match self.root {
            (Height(0), id) => format!("genesis {id}"),
            (height, id) => format!("block {height}:{id}"),
        }
    }

    /// Whether the root is so old that its keys may have been sold (F2).
    pub fn is_stale(&self, now: WallMs) -> bool {
        self.trusting_ms > 0 && now.since(self.root_time) >= self.trusting_ms
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocStep {
    header: String,
    certificate: String,
    validators: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocStart {
    header: String,
    validators: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Doc {
    format: String,
    chain: String,
    #[serde(default)]
    start: Option<DocStart>,
    txid: String,
    wtxid: String,
    height: u64,
    blockhash: String,
    merkle: String,
    header: String,
    certificate: String,
    validators: String,
    steps: Vec<DocStep>,
    #[serde(default)]
    recoveries: Vec<String>,
}

fn to_hex<T: Serialize>(value: &T) -> String {
    hex::encode(&codec::encode(value))
}

/// The value that lower-case hex of a canonical encoding stands for.
fn part<T: DeserializeOwned>(
    name: &'static str,
    text: &str,
    limit: usize,
) -> Result<T, ProofError> {
    let fault = |reason: String| ProofError::Part { part: name, reason };
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(fault("hex digits must be lower case".into()));
    }
    if text.len() > 2 * limit {
        return Err(fault(format!("longer than {limit} bytes")));
    }
    let bytes = hex::decode(text).map_err(|e| fault(e.to_string()))?;
    codec::decode(&bytes, limit).map_err(|e| fault(e.to_string()))
}

fn doc_step(step: &DocStep) -> Result<Step, ProofError> {
    Ok(Step {
        header: part("step header", &step.header, HEADER_BYTES_MAX)?,
        certificate: part(
            "step certificate",
            &step.certificate,
            FRAME_CERTIFICATE_BYTES,
        )?,
        next: part("step validators", &step.validators, SET_BYTES_MAX)?,
    })
}

fn doc_start(start: &DocStart) -> Result<Start, ProofError> {
    Ok(Start {
        header: part("start header", &start.header, HEADER_BYTES_MAX)?,
        next: part("start validators", &start.validators, SET_BYTES_MAX)?,
    })
}

impl Proof {
    /// The proof as JSON.
    pub fn to_json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            json!({
                "header": to_hex(&step.header),
                "certificate": to_hex(&step.certificate),
                "validators": to_hex(&step.next),
            })
        });
        let mut out = json!({
            "format": FORMAT,
            "chain": self.chain.to_string(),
            "txid": self.txid.to_string(),
            "wtxid": self.wtxid.to_string(),
            "height": self.header.height.0,
            "blockhash": self.header.id().to_string(),
            "merkle": to_hex(&self.merkle),
            "header": to_hex(&self.header),
            "certificate": to_hex(&self.certificate),
            "validators": to_hex(&self.validators),
            "steps": steps.collect::<Vec<_>>(),
        });
        if let Some(start) = &self.start {
            out["start"] = json!({
                "header": to_hex(&start.header),
                "validators": to_hex(&start.next),
            });
        }
        if !self.recoveries.is_empty() {
            out["recoveries"] = self.recoveries.iter().map(to_hex).collect();
        }
        out
    }

    /// Reads a proof from JSON. Only its form is checked here; [`verify`] judges it.
    pub fn from_json(text: &str) -> Result<Proof, ProofError> {
        if text.len() > PROOF_BYTES_MAX {
            return Err(ProofError::Format("too large".into()));
        }
        let doc: Doc = serde_json::from_str(text).map_err(|e| ProofError::Format(e.to_string()))?;
        if doc.format != FORMAT {
            return Err(ProofError::Format(format!("format is not {FORMAT}")));
        }
        if doc.steps.len() > STEP_COUNT_MAX {
            return Err(ProofError::Format("too many steps".into()));
        }
        let header: Header = part("header", &doc.header, HEADER_BYTES_MAX)?;
        if doc.height != header.height.0 {
            return Err(ProofError::Contradiction(
                "height is not that of the header",
            ));
        }
        if doc.blockhash != header.id().to_string() {
            return Err(ProofError::Contradiction(
                "blockhash is not that of the header",
            ));
        }
        Ok(Proof {
            chain: ChainId(part("chain", &doc.chain, 32)?),
            start: doc.start.as_ref().map(doc_start).transpose()?,
            txid: Txid(part("txid", &doc.txid, 32)?),
            wtxid: Wtxid(part("wtxid", &doc.wtxid, 32)?),
            merkle: part("merkle", &doc.merkle, MERKLE_BYTES_MAX)?,
            certificate: part("certificate", &doc.certificate, FRAME_CERTIFICATE_BYTES)?,
            validators: part("validators", &doc.validators, SET_BYTES_MAX)?,
            steps: doc.steps.iter().map(doc_step).collect::<Result<_, _>>()?,
            recoveries: doc
                .recoveries
                .iter()
                .map(|text| part("recovery certificate", text, FRAME_RECOVERY_BYTES))
                .collect::<Result<_, _>>()?,
            header,
        })
    }
}

/// The set that decides height 1.
pub fn genesis_set(genesis: &Genesis) -> ValidatorSet {
    Registry::genesis(genesis).validators()
}

/// Whether `certificate` by `set` decides the block of `header`; the power that signed.
fn decides(
    chain: ChainId,
    header: &Header,
    certificate: &Certificate,
    set: &ValidatorSet,
) -> Result<Power, ProofError> {
    let height = header.height;
    let fault = |reason: &str| ProofError::Certificate {
        height,
        reason: reason.into(),
    };
    if header.version != HEADER_VERSION {
        return Err(ProofError::Version(height));
    }
    if header.validators_hash != set.hash() {
        return Err(ProofError::OtherSet(height));
    }
    if certificate.height != height || certificate.block != header.id() {
        return Err(fault("it names another block"));
    }
    let proposed = EraRound {
        era: header.era,
        round: header.round,
    };
    if certificate.commit.at < proposed {
        return Err(fault("its round is before that of the proposal"));
    }
    let checks = certificate.checks(chain, header.branch, set);
    let checks = checks.map_err(|e: CommitError| fault(&e.to_string()))?;
    if !verify_all(&checks) {
        return Err(fault("a signature is wrong"));
    }
    Ok(set.power_of(certificate.commit.signers.ones()))
}

/// Where belief begins: the root with its time, the set it names, and how many steps lie below it.
struct Root {
    block: Trusted,
    era: Era,
    time: WallMs,
    set: ValidatorSet,
    skip: usize,
}

/// A set that a header names for the next height.
fn named(header: &Header, next: &ValidatorSet) -> Result<ValidatorSet, ProofError> {
    match header.next_validators_hash == next.hash() {
        true => Ok(next.clone()),
        false => Err(ProofError::OtherSet(header.height.next())),
    }
}

/// The root of a proof: the genesis, or the block that is vouched for, wherever it stands in the proof.
fn root_of(genesis: &Genesis, proof: &Proof, trusted: Option<Trusted>) -> Result<Root, ProofError> {
    let genesis_block = (Height(0), BlockId(genesis.chain_id().0));
    let Some((height, id)) = trusted.filter(|trusted| *trusted != genesis_block) else {
        if let Some(start) = &proof.start {
            let (height, id) = (start.header.height, start.header.id());
            return Err(ProofError::Unvouched(height, id));
        }
        return Ok(Root {
            block: genesis_block,
            era: Era(0),
            time: genesis.time,
            set: genesis_set(genesis),
            skip: 0,
        });
    };
    let start = proof.start.iter().map(|s| (&s.header, &s.next, 0));
    let steps = (1..).zip(&proof.steps);
    let steps = steps.map(|(skip, step)| (&step.header, &step.next, skip));
    let is_it = |header: &Header| header.height == height && header.id() == id;
    let found = start.chain(steps).find(|(header, ..)| is_it(header));
    let (header, set, skip) = match found {
        Some((header, next, skip)) => (header, named(header, next)?, skip),
        // The block itself is vouched for.
        None if is_it(&proof.header) => {
            let set = proof.validators.clone();
            (&proof.header, set, proof.steps.len())
        }
        None => return Err(ProofError::NoRoot(height, id)),
    };
    if header.version != HEADER_VERSION {
        return Err(ProofError::Version(height));
    }
    Ok(Root {
        block: (height, id),
        era: header.era,
        time: header.time,
        set,
        skip,
    })
}

/// Judges a proof by the genesis, or by a block that the caller vouches for (F2); the genesis names the chain then.
pub fn verify(
    genesis: &Genesis,
    proof: &Proof,
    trusted: Option<Trusted>,
) -> Result<Verdict, ProofError> {
    let (chain, params) = (genesis.chain_id(), &genesis.params);
    if proof.chain != chain {
        return Err(ProofError::OtherChain {
            found: proof.chain,
            wanted: chain,
        });
    }
    let root = root_of(genesis, proof, trusted)?;
    let mut height = root.block.0;
    let mut walk = Walk::new(chain, (height, root.era), root.set, &proof.recoveries);
    for step in proof.steps.iter().skip(root.skip) {
        if step.header.height <= height {
            return Err(ProofError::Order(step.header.height));
        }
        let at = (step.header.height, step.certificate.commit.at.era);
        let set = walk.deciders(at, &walk.set())?;
        decides(chain, &step.header, &step.certificate, &set)?;
        height = step.header.height;
        walk.follow(height, named(&step.header, &step.next)?);
    }
    let vouched = (proof.header.height, proof.header.id()) == root.block;
    if proof.header.height <= height && !vouched {
        return Err(ProofError::Order(proof.header.height));
    }
    if proof.validators != walk.set() && !vouched {
        return Err(ProofError::OtherSet(proof.header.height));
    }
    let at = (proof.header.height, proof.certificate.commit.at.era);
    let set = walk.deciders(at, &proof.validators)?;
    let signed = decides(chain, &proof.header, &proof.certificate, &set)?;
    let leaf = tx_leaf(&proof.txid, &proof.wtxid);
    if TX_TREE.root_from(&leaf, &proof.merkle) != Some(proof.header.tx_root) {
        return Err(ProofError::NotIncluded);
    }
    Ok(Verdict {
        txid: proof.txid,
        wtxid: proof.wtxid,
        height: proof.header.height,
        block: proof.header.id(),
        time: proof.header.time,
        signed,
        total: set.total(),
        step_count: proof.steps.len() - root.skip,
        root: root.block,
        root_time: root.time,
        trusting_ms: params.trusting_period.saturating_mul(params.slot_ms),
    })
}
