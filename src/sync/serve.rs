//! The other side of a request: what a node answers to GetBlocks. Bounded by count and bytes; reads no more than it sends.

use super::SYNC_ANSWER_BYTES;
use crate::base::limits::{FRAME_HEADERS_BYTES, HEADERS_COUNT_MAX, SYNC_RANGE_BLOCKS};
use crate::types::block::{Block, Certificate, CertifiedHeader};
use crate::types::codec::{self, encoded_len};
use crate::types::ids::Height;
use std::sync::Arc;

/// Where decided blocks are read.
pub trait BlockReader {
    /// Why reading failed: our own disk.
    type Error;
    /// The block decided at a height with its certificate, if it is there.
    fn certified(&self, height: Height) -> Result<Option<(Arc<Block>, Certificate)>, Self::Error>;
    /// Slot headers from a height on, ascending, as long as `take` wants more.
    fn slot_headers(
        &self,
        from: Height,
        take: &mut dyn FnMut(CertifiedHeader) -> bool,
    ) -> Result<(), Self::Error>;
    /// The lowest height whose block is kept (F6).
    fn first(&self) -> Result<Height, Self::Error> {
        Ok(Height(1))
    }
    /// The same as a Block frame holds it. Who stores it that way need not take it apart.
    fn encoded(&self, height: Height) -> Result<Option<Vec<u8>>, Self::Error> {
        let found = self.certified(height)?;
        Ok(found.map(|(block, certificate)| codec::encode(&(&*block, &certificate))))
    }
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

/// As [`answer`], encoded: bodies of Block frames.
pub fn answer_encoded<R: BlockReader + ?Sized>(
    reader: &R,
    from: Height,
    count: u16,
) -> Result<Vec<Vec<u8>>, R::Error> {
    let count = u64::from(count).min(SYNC_RANGE_BLOCKS);
    let (mut out, mut bytes) = (Vec::new(), 0);
    for height in from.0..from.0.saturating_add(count) {
        let Some(frame) = reader.encoded(Height(height))? else {
            break;
        };
        bytes += frame.len();
        out.push(frame);
        if bytes >= SYNC_ANSWER_BYTES {
            break;
        }
    }
    Ok(out)
}

/// The headers to send for GetHeaders: as many as fit a frame. `slots`: those of slot blocks only.
pub fn answer_headers<R: BlockReader + ?Sized>(
    reader: &R,
    from: Height,
    slots: bool,
) -> Result<Vec<CertifiedHeader>, R::Error> {
    let mut out: Vec<CertifiedHeader> = Vec::new();
    // The count of a list stands before it.
    let mut bytes = 8;
    let mut take = |item: CertifiedHeader| {
        bytes += encoded_len(&item);
        if bytes > FRAME_HEADERS_BYTES || out.len() >= HEADERS_COUNT_MAX {
            return false;
        }
        out.push(item);
        true
    };
    if slots {
        reader.slot_headers(from, &mut take)?;
        return Ok(out);
    }
    for height in from.0..from.0.saturating_add(HEADERS_COUNT_MAX as u64) {
        let Some((block, certificate)) = reader.certified(Height(height))? else {
            break;
        };
        let header = block.header.clone();
        // Sets change at slot blocks, which come with the set from their own list.
        let mut next = None;
        if header.next_validators_hash != header.validators_hash {
            reader.slot_headers(Height(height), &mut |item| {
                next = item.next;
                false
            })?;
        }
        if !take(CertifiedHeader {
            header,
            certificate,
            next,
        }) {
            break;
        }
    }
    Ok(out)
}
