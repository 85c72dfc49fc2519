//! L8, the process: configuration, data directory, threads and their queues, start and stop.
//!
//! Everything that touches the operating system as a program does is here; what decides is below.

pub mod cli;
pub mod cli_cmds;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod consensus;
pub mod datadir;
pub mod devnet;
pub mod disks;
pub mod download;
pub mod exit;
pub mod files;
pub mod forkfile;
pub mod handle;
pub mod keeper;
pub mod keys;
pub mod logging;
#[cfg(test)]
mod manual;
pub mod meter;
pub mod netcmd;
pub mod netlanes;
pub mod netthread;
pub mod notify;
pub mod pinning;
pub mod pool;
pub mod provision;
pub mod publish;
pub mod queues;
pub mod rlimit;
pub mod rpcthreads;
pub mod run;
pub mod signals;
pub mod snapshots;
pub mod syncer;
#[cfg(test)]
mod testing;
pub mod testnet;
pub mod trust;
pub mod wallets;
