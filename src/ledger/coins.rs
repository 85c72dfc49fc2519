//! Coins and where they are looked up. A view answers for one moment: the disk, the disk with decided blocks on top, or a
//! block half judged. Views never change what they show.

use crate::crypto::hash::{Domain, hash};
use crate::ledger::apply::Delta;
use crate::types::fork::Decision;
use crate::types::ids::{Height, OutPoint};
use crate::types::transaction::TxOutput;
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bit 0 of [`Coin::flags`]: the coin is an output of a coinbase (L11). All other bits are zero.
pub const FLAG_COINBASE: u8 = 1;

/// An unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    /// Value and program.
    pub output: TxOutput,
    /// [`FLAG_COINBASE`] or 0.
    pub flags: u8,
}

/// Our own disk failed while a coin was looked up: no verdict on anybody; the node stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read coins: {0}")]
pub struct ViewError(pub String);

/// Where coins are looked up.
pub trait CoinView {
    /// The coin at `outpoint`, `None` if there is none or it is spent.
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError>;

    /// What was decided at a height, if the view remembers: a ledger does, coins alone do not.
    fn decision(&self, _height: Height) -> Result<Option<Decision>, ViewError> {
        Ok(None)
    }

    /// The set that decided a height, as far back as undo reaches.
    fn deciders_of(&self, _height: Height) -> Result<Option<Arc<ValidatorSet>>, ViewError> {
        Ok(None)
    }
}

/// A sorted list of coins, as [`Delta`] holds them.
pub type CoinList = Vec<(OutPoint, Coin)>;

fn find<'a>(list: &'a [(OutPoint, Coin)], outpoint: &OutPoint) -> Option<&'a Coin> {
    let found = list.binary_search_by(|(o, _)| o.cmp(outpoint)).ok()?;
    Some(&list[found].1)
}

/// A view with the changes of decided blocks on top, the newest last.
pub struct Overlay<'a> {
    base: &'a dyn CoinView,
    deltas: &'a [Arc<Delta>],
}

impl<'a> Overlay<'a> {
    /// `base` with `deltas` applied to it in order.
    pub fn new(base: &'a dyn CoinView, deltas: &'a [Arc<Delta>]) -> Overlay<'a> {
        Overlay { base, deltas }
    }
}

impl CoinView for Overlay<'_> {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        for delta in self.deltas.iter().rev() {
            if let Some(coin) = find(&delta.created, outpoint) {
                return Ok(Some(*coin));
            }
            if find(&delta.spent, outpoint).is_some() {
                return Ok(None);
            }
        }
        self.base.coin(outpoint)
    }
}

/// Bytes of one coin as the UTXO digest sees it: (outpoint, value, program, flags) in the canonical encoding (L11).
pub const COIN_ELEMENT_BYTES: usize = 32 + 4 + 8 + 4 + 32 + 1;

/// The element of one coin, written without allocating; equal to its canonical encoding.
pub fn coin_element(outpoint: &OutPoint, coin: &Coin) -> [u8; COIN_ELEMENT_BYTES] {
    let mut out = [0; COIN_ELEMENT_BYTES];
    out[..32].copy_from_slice(&outpoint.txid.0.0);
    out[32..36].copy_from_slice(&outpoint.vout.to_le_bytes());
    out[36..44].copy_from_slice(&coin.output.value.0.to_le_bytes());
    let variant = u32::from(coin.output.program.version()) - 1;
    out[44..48].copy_from_slice(&variant.to_le_bytes());
    out[48..80].copy_from_slice(coin.output.program.bytes());
    out[80] = coin.flags;
    out
}

/// The bucket of an outpoint: first byte of its hash (L11).
pub fn bucket_of(outpoint: &OutPoint) -> u8 {
    hash(
        Domain::CoinBucket,
        &[&outpoint.txid.0.0, &outpoint.vout.to_le_bytes()],
    )
    .0[0]
}

/// Coins in memory: tests and the simulator. Keeps what it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryCoins(pub std::collections::BTreeMap<OutPoint, Coin>);

impl MemoryCoins {
    /// The coins of a genesis.
    pub fn genesis(genesis: &crate::types::genesis::Genesis) -> MemoryCoins {
        let coins = genesis.coins().into_iter();
        MemoryCoins(
            coins
                .map(|(outpoint, output)| (outpoint, Coin { output, flags: 0 }))
                .collect(),
        )
    }
    /// Takes over the changes of a decided block.
    pub fn commit(&mut self, delta: &Delta) {
        self.0.extend(delta.created.iter().copied());
        for (outpoint, _) in &delta.spent {
            self.0.remove(outpoint);
        }
    }
}

impl CoinView for MemoryCoins {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        Ok(self.0.get(outpoint).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::PublicKey;
    use crate::types::address::Program;
    use crate::types::amount::Amount;
    use crate::types::codec;
    use crate::types::ids::Txid;

    #[test]
    fn the_element_is_the_canonical_encoding() {
        for program in [
            Program::Key(PublicKey([3; 32])),
            Program::Policy(Hash([4; 32])),
        ] {
            let outpoint = OutPoint {
                txid: Txid(Hash([1; 32])),
                vout: 0x0102_0304,
            };
            let value = Amount(0x0a0b_0c0d_0e0f_1011);
            let coin = Coin {
                output: TxOutput { value, program },
                flags: FLAG_COINBASE,
            };
            assert_eq!(
                coin_element(&outpoint, &coin).to_vec(),
                codec::encode(&(outpoint, coin)),
                "L7, L11: one encoding"
            );
        }
    }
}
