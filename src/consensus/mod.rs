//! L4: the Tendermint core of one height (section 3 of the protocol) as a pure machine over ids: no blocks, no ledger, no
//! signatures made, no clocks. `tally` counts votes, `round` is the algorithm line by line, `timeouts` says how long
//! timers run, `machine` drives a height, `held` tells peers which votes they lack, `late` keeps votes of decided heights for evidence, `rules` lets tests take a rule away.

pub mod evidence;
pub mod held;
pub mod late;
pub mod machine;
pub mod messages;
pub mod round;
pub mod rules;
pub mod tally;
pub mod timeouts;

#[cfg(test)]
mod tests;
