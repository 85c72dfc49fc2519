//! TimeCoin.
