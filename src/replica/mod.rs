//! L5: one node's brain (rules S1-S10, B7). It joins ledger, mempool and consensus core into the machine that the consensus
//! thread drives: proposals are built and judged, votes signed once and said only when durable, blocks decided.
//!
//! Input: frames, verdicts on signatures, durability reports, submissions, time. Output: [`io::Effect`]s. It never reads a
//! clock, a socket or a file; coins come from a view that is handed in.

pub mod assembly;
mod blocks;
pub mod catchup;
pub mod clock;
mod evidence;
pub mod fork;
mod frames;
pub mod gate;
pub mod guard;
mod height;
pub mod info;
pub mod io;
pub mod liveness;
pub mod machine;
pub mod peers;
pub mod record;
pub mod relay;
pub mod requests;
pub mod sizes;
pub mod standing;
pub mod start;
mod transactions;
