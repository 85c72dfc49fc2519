//! `time-cli`, the command-line client.

fn main() {}
