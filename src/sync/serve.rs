//! The other side of a request: what a node answers to GetBlocks. Bounded by count and bytes; reads no more than it sends.

use super::SYNC_ANSWER_BYTES;
use crate::base::limits::SYNC_RANGE_BLOCKS;
use crate::types::block::{Block, Certificate};
use crate::types::codec::encoded_len;
use crate::types::ids::Height;
use std::sync::Arc;

/// Where decided blocks are read.
pub trait BlockReader {
    /// Why reading failed: our own disk.
    type Error;
    /// The block decided at a height with its certificate, if it is there.
    fn certified(&self, height: Height) -> Result<Option<(Arc<Block>, Certificate)>, Self::Error>;
}

/// Bytes of a block with its certificate as an answer counts them.
pub(super) fn counted_size(block: &Block, certificate: &Certificate) -> usize {
    encoded_len(block) + encoded_len(certificate)
}

/// The blocks to send, one frame each, for a request of `count` blocks from `from`. At most 64; the block that brings the
/// answer to [`SYNC_ANSWER_BYTES`] is the last; a height that is not there ends it.
pub fn answer<R: BlockReader + ?Sized>(
    reader: &R,
    from: Height,
    count: u16,
) -> Result<Vec<(Arc<Block>, Certificate)>, R::Error> {
    let count = u64::from(count).min(SYNC_RANGE_BLOCKS);
    let (mut out, mut bytes) = (Vec::new(), 0);
    for height in from.0..from.0.saturating_add(count) {
        let Some((block, certificate)) = reader.certified(Height(height))? else {
            break;
        };
        bytes += counted_size(&block, &certificate);
        out.push((block, certificate));
        if bytes >= SYNC_ANSWER_BYTES {
            break;
        }
    }
    Ok(out)
}
