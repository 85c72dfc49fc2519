//! Tests of the whole core: several machines wired by hand or by a seed, every rule of section 3 checked at every step.

mod bounds;
mod enumerate;
mod executions;
mod kit;
mod random;
mod three_rounds;
