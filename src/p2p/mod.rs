//! L4: what peers say to each other (P1-P4). Messages with their bounds, and the pure machine that greets peers, keeps
//! connections and dials again. No socket here; the net thread and the simulator move the bytes.

pub mod address;
pub mod book;
pub mod buckets;
pub mod machine;
pub mod messages;
pub mod reputation;

#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod month_tests;
