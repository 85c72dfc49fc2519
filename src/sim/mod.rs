//! L6: a whole network in one thread, driven by one seed: real replica, p2p and sync machines with the real codec over
//! virtual clocks, disks and connections, with every fault that a network, a disk, a clock or a liar can have.
//!
//! Input: a seed and [`world::Options`]. Output: a [`world::Report`], or a [`world::Violation`] with the trace that led to
//! it. It imports the pure layers only, and never sleeps, reads a real clock or draws real randomness: the same seed gives
//! the same log, byte for byte.

pub mod adversary;
pub mod checker;
mod churn;
pub mod clients;
pub mod disk;
pub mod faults;
mod glue;
mod history;
pub mod kit;
mod links;
pub mod log;
pub mod network;
pub mod node;
pub mod script;
pub mod shared;
pub mod stage;
pub mod swarm;
pub mod world;

#[cfg(test)]
mod tests_crossing;
#[cfg(test)]
mod tests_fork;
