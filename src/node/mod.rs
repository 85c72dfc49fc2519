//! L8, the process: configuration, data directory, threads and their queues, start and stop.
//!
//! Everything that touches the operating system as a program does is here; what decides is below.

pub mod cli;
pub mod cli_cmds;
pub mod client;
pub mod config;
pub mod datadir;
pub mod exit;
pub mod files;
pub mod keys;
pub mod logging;
#[cfg(test)]
mod manual;
pub mod notify;
pub mod pinning;
pub mod rlimit;
pub mod signals;
#[cfg(test)]
mod testing;
