//! The start after a fork has ended for the other branch (B6 step 5): the ledger goes back to below the fork before anything
//! else looks at it, and the payments of the blocks that go are kept in a file first.

use crate::base::time::WallMs;
use crate::ledger::mempool::{MempoolLimits, SavedTx, decode_saved, encode_saved};
use crate::node::exit::Exit;
use crate::node::run::RunError;
use crate::node::run::open::Opened;
use crate::replica::start::wanted_block;
use crate::types::ids::Height;
use crate::types::transaction::Tx;

/// B6 step 5: a ledger on the branch that is gone goes back to below the fork. Its payments are on disk before that, and are
/// offered again at this start and every later one: those decided since are refused.
pub(super) fn take_back(
    opened: &Opened,
    records: &[(Vec<u8>, Vec<u8>)],
    limits: MempoolLimits,
) -> Result<Vec<Tx>, RunError> {
    let file = opened.datadir.taken_back();
    let chain = opened.genesis.chain_id();
    let wanted = wanted_block(records).map_err(|e| RunError::new(e, Exit::Data))?;
    if let Some((height, stays)) = wanted
        && let Some(held) = opened.ledger.block_id(height)?
        && held != stays
    {
        let to = Height(height.0.saturating_sub(1));
        let payments = opened.ledger.payments_above(to)?;
        log::warn!(
            "the fork at height {height} ended for {stays}: {} blocks with {} payments are taken back",
            opened.ledger.tip().0 - to.0,
            payments.len()
        );
        let added = WallMs(0);
        let saved = payments.into_iter().map(|tx| SavedTx { added, tx });
        let bytes = encode_saved(chain, saved);
        crate::node::files::write_private(&file, &bytes)?;
        opened.ledger.rewind(to)?;
    }
    Ok(taken_back(opened, limits).unwrap_or_default())
}

/// The payments of the blocks that the last fork took back here; `None` if none ever did.
pub(super) fn taken_back(opened: &Opened, limits: MempoolLimits) -> Option<Vec<Tx>> {
    let file = opened.datadir.taken_back();
    let bytes = std::fs::read(&file).ok()?;
    let bound = limits.bytes.max(bytes.len()) + super::threads::SAVED_FRAMING;
    match decode_saved(&bytes, bound, opened.genesis.chain_id()) {
        Ok(saved) => Some(saved.into_iter().map(|saved| saved.tx).collect()),
        Err(error) => {
            log::warn!("{}: {error}", file.display());
            None
        }
    }
}
