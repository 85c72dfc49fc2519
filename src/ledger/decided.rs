//! A block that is decided: what storage commits, in order of height.

use crate::ledger::apply::Delta;
use crate::types::block::{Block, Certificate};
use std::sync::Arc;

/// A block with the certificate that decides it and the changes it makes.
#[derive(Debug, Clone)]
pub struct DecidedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// Proof that it is decided.
    pub certificate: Certificate,
    /// What it changes.
    pub delta: Arc<Delta>,
}
