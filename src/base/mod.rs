//! L0: what every layer may rely on. Bounds with their arithmetic, time as data, bounded containers, seeded randomness.
//! Nothing here performs I/O or reads a clock.

pub mod bounded;
pub mod hex;
pub mod limits;
pub mod rng;
pub mod time;
