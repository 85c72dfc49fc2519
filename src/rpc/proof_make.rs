//! Makes finality proofs from what this node holds. Input: a transaction and, if wanted, the block where the proof is to begin.
//! Output: a [`Proof`] that [`crate::rpc::proof::verify`] accepts, or what the node does not hold (any more).

use crate::crypto::hash::Hash;
use crate::crypto::merkle::TX_TREE;
use crate::rpc::node::{Node, ReadError};
use crate::rpc::proof::{Proof, Start, Step, Trusted, genesis_set};
use crate::rpc::reader::Chain;
use crate::types::block::{Header, tx_leaf};
use crate::types::fork::RecoveryCert;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;

fn missing(what: &str, height: Height) -> ReadError {
    ReadError(format!("{what} of height {height} is missing"))
}

/// The block of a proof's start, with its set, if this node's chain holds it.
pub fn start_at(
    chain: &Chain<'_>,
    node: &dyn Node,
    (height, id): Trusted,
) -> Result<Option<Start>, ReadError> {
    let header = chain.header(height)?.filter(|header| header.id() == id);
    let Some(header) = header else {
        return Ok(None);
    };
    let genesis = genesis_set(&node.facts().genesis);
    let next = set_of(node, &genesis, &header.next_validators_hash, height)?;
    Ok(Some(Start { header, next }))
}

/// Makes the proof of a decided transaction, from the genesis or from `start`, which must not be above its block; `None` if
/// it is in no decided block.
pub fn make(
    chain: &Chain<'_>,
    node: &dyn Node,
    txid: &Txid,
    start: Option<Start>,
) -> Result<Option<Proof>, ReadError> {
    let Some((height, index)) = chain.position_of(txid)? else {
        return Ok(None);
    };
    let block = chain
        .block(height)?
        .ok_or_else(|| missing("block", height))?;
    let certificate = chain.certificate(height)?;
    let certificate = certificate.ok_or_else(|| missing("certificate", height))?;
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let txs = block.transactions.iter();
    let leaves: Vec<Hash> = txs.map(|tx| tx_leaf(&tx.txid, &tx.wtxid)).collect();
    let (Some(merkle), Some(tx)) = (TX_TREE.proof(&leaves, index), block.transactions.get(index))
    else {
        return Err(missing("a transaction of the index", height));
    };
    let genesis = genesis_set(&node.facts().genesis);
    let root = start.as_ref().map_or(&genesis, |start| &start.next);
    let vouched = start.as_ref().is_some_and(|s| s.header == block.header);
    let steps = match vouched {
        true => Vec::new(),
        false => steps(chain, node, root, &block.header)?,
    };
    let (from, to) = (
        start.as_ref().map_or(Era(0), |start| start.header.era),
        certificate.commit.at.era,
    );
    let on_the_way = |cert: &RecoveryCert| from <= cert.era && cert.era < to;
    let recoveries = match from < to {
        true => node.recoveries().into_iter().filter(on_the_way).collect(),
        false => Vec::new(),
    };
    Ok(Some(Proof {
        recoveries,
        chain: node.facts().chain,
        txid: tx.txid,
        wtxid: tx.wtxid,
        merkle,
        validators: set_of(node, &genesis, &block.header.validators_hash, height)?,
        steps,
        header: block.header.clone(),
        certificate,
        start,
    }))
}

fn set_of(
    node: &dyn Node,
    root: &ValidatorSet,
    hash: &Hash,
    height: Height,
) -> Result<ValidatorSet, ReadError> {
    if root.hash() == *hash {
        return Ok(root.clone());
    }
    let found = node.ledger().validator_set(hash)?;
    found
        .map(|set| ValidatorSet::clone(&set))
        .ok_or_else(|| missing("the validator set", height))
}

/// Set changes between a root and a header, found by walking its slot blocks down. The walk ends where the set of the root
/// is in force: it vouches for that header itself.
fn steps(
    chain: &Chain<'_>,
    node: &dyn Node,
    root: &ValidatorSet,
    header: &Header,
) -> Result<Vec<Step>, ReadError> {
    let root_hash = root.hash();
    let mut out = Vec::new();
    let mut at = header.clone();
    while at.validators_hash != root_hash {
        let found = chain.height_of(&at.prev_slot_block)?;
        let height = found.ok_or_else(|| missing("the slot block below", at.height))?;
        let below = chain
            .header(height)?
            .ok_or_else(|| missing("header", height))?;
        if below.next_validators_hash != below.validators_hash {
            let certificate = chain.certificate(height)?;
            out.push(Step {
                next: set_of(node, root, &below.next_validators_hash, height.next())?,
                certificate: certificate.ok_or_else(|| missing("certificate", height))?,
                header: below.clone(),
            });
        }
        at = below;
    }
    out.reverse();
    Ok(out)
}
