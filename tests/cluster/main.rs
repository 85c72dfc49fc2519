//! Networks of real processes: what users are promised, through kills and bad input.

mod bad_input;
mod crash;
mod fork;
mod forked;
mod keys;
mod load;
mod masternode;
mod network;
mod peers;
mod shaped;
mod stranger;
mod strike;
mod support;
mod tls;
mod two_hosts;
