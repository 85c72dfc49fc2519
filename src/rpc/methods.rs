//! The methods, by category. Each file holds the rows of its category and the functions behind them.

pub mod control;

use crate::rpc::registry::MethodSpec;

/// The rows of all categories.
pub const GROUPS: &[&[MethodSpec]] = &[control::METHODS];
