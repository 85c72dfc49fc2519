//! What an environment must be before it is a ledger: made, brought up to this format, and of this network.
//! Inputs: an open environment and the genesis. It must never change a ledger of another network or a newer format.

use super::env::{Env, Write};
use super::error::StorageError;
use super::reader::Snapshot;
use super::schema::*;
use super::writer::{Change, put_coins, put_state};
use crate::ledger::coins::Coin;
use crate::ledger::state::State;
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;

/// Writes height 0 into an environment without entries.
pub(super) fn create(env: &Env, genesis: &Genesis) -> Result<(), StorageError> {
    let read = env.read()?;
    for i in 0..LEDGER_TABLES.len() {
        if read.entries(super::env::Table(i))? > 0 {
            return Err(StorageError::corrupt(
                env.dir(),
                "the format entry is missing",
            ));
        }
    }
    drop(read);
    let state = State::genesis(genesis);
    let id = state.block();
    let coins = genesis.coins().into_iter();
    let coins = coins.map(|(o, output)| (o, Change::Create(Coin { output, flags: 0 })));
    let mut write = env.write()?;
    put_coins(&mut write, env.dir(), &coins.collect())?;
    put_state(&mut write, None, &state, &(0..=u8::MAX).collect())?;
    put_set(&mut write, &state.validators)?;
    write.put(HISTORY, &height_key(Height(0)), &id.0.0)?;
    write.put(HEIGHTS, &id.0.0, &height_key(Height(0)))?;
    write.put(META, META_FORMAT, &format_entry())?;
    write.put(META, META_CHAIN, &state.chain_id().0.0)?;
    write.put(META, META_GENESIS, &codec::encode(genesis))?;
    write.put(META, META_GENESIS_ROOT, &state.root().0)?;
    write.commit()
}

pub(super) fn format_entry() -> Vec<u8> {
    [LEDGER_MAGIC, LEDGER_FORMAT.to_le_bytes()].concat()
}

pub(super) fn put_set(write: &mut Write<'_>, set: &ValidatorSet) -> Result<(), StorageError> {
    write.put(SETS, &set.hash().0, &codec::encode(set))
}

/// A ledger of format 1 gets what format 2 added. Sets that came and went before `max_reorg` blocks ago are lost to it.
pub(super) fn upgrade(env: &Env, genesis: &Genesis) -> Result<(), StorageError> {
    let read = env.read()?;
    if read.get(META, META_FORMAT)? == Some(&format_entry()[..]) {
        return Ok(());
    }
    log::info!(
        "{}: bringing the ledger to format {LEDGER_FORMAT}",
        env.dir().display()
    );
    let view = Snapshot {
        read,
        dir: env.dir(),
    };
    let tip = view.state(genesis)?;
    let mut write = env.write()?;
    for set in [
        &State::genesis(genesis).validators,
        &tip.validators,
        &tip.last_validators,
    ] {
        put_set(&mut write, set)?;
    }
    for height in (1..=tip.height().0).map(Height) {
        if let (Some(header), Some(certificate)) = (view.header(height)?, view.certificate(height)?)
            && !header.slot_root.is_zero()
        {
            write.put(
                SLOTS,
                &height_key(height),
                &codec::encode(&(header, certificate)),
            )?;
        }
        if height.0.is_multiple_of(100_000) {
            log::info!("format {LEDGER_FORMAT}: block {height} of {}", tip.height());
        }
    }
    write.put(META, META_FORMAT, &format_entry())?;
    drop(view);
    write.commit()
}

/// Whose ledger is it, and can this software read it?
pub(super) fn check_meta(env: &Env, genesis: &Genesis) -> Result<(), StorageError> {
    let read = env.read()?;
    let corrupt = |what| StorageError::corrupt(env.dir(), what);
    let format = read.get(META, META_FORMAT)?.unwrap_or_default();
    let format = format.split_first_chunk::<4>();
    let (magic, format) = format.ok_or_else(|| corrupt("the format entry is cut short"))?;
    if *magic != LEDGER_MAGIC {
        return Err(corrupt("the format entry is not that of a ledger"));
    }
    let found = format.try_into().map(u32::from_le_bytes);
    let found = found.map_err(|_| corrupt("the format entry has another size"))?;
    if found > LEDGER_FORMAT {
        return Err(StorageError::NewerSchema {
            path: env.dir().to_path_buf(),
            found,
            known: LEDGER_FORMAT,
        });
    }
    let wanted = genesis.chain_id();
    let chain = read.get(META, META_CHAIN)?.unwrap_or_default();
    if chain != wanted.0.0 {
        return Err(StorageError::Foreign {
            path: env.dir().to_path_buf(),
            found: crate::base::hex::encode(chain),
            wanted: wanted.to_string(),
        });
    }
    Ok(())
}

/// Does what was loaded hang together? Costs the same for every size of ledger; `verify` looks at everything.
pub(super) fn check_tip(view: &Snapshot<'_>, state: &State) -> Result<(), StorageError> {
    let height = state.height();
    let root = if height == Height(0) {
        let root = view.read.get(META, META_GENESIS_ROOT)?;
        root.map(<[u8]>::to_vec)
    } else {
        let header = view.header(height)?;
        let header = header.filter(|header| header.id() == state.block());
        header.map(|header| header.state_root.0.to_vec())
    };
    let fail = |what| Err(view.corrupt(what));
    if root.as_deref() != Some(&state.root().0[..]) {
        return fail("the state at the tip is not the one its block commits to");
    }
    if !state.supply_adds_up() || state.tip.coin_count != view.read.entries(COINS)? {
        return fail("the supply does not add up");
    }
    if view.read.entries(OWNERS)? != state.tip.coin_count {
        return fail("the owner index does not fit the coins");
    }
    let certified = match view.certificate(height)? {
        Some(certificate) => certificate.block == state.block(),
        None => height == Height(0),
    };
    if !certified || view.block_id(height)? != Some(state.block()) {
        return fail("the tip has no certificate or another id");
    }
    Ok(())
}
