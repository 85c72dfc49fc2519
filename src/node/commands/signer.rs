//! `timed signer`: what keeps a masternode from signing twice (B7).

use crate::base::hex;
use crate::node::commands::{CommandError, Output, table};
use crate::node::config::Config;
use crate::node::datadir::{DataDir, lock_operator_key};
use crate::node::exit::Exit;
use crate::node::keys::{self, KeyKind};
use crate::node::run::load_genesis;
use crate::replica::record::{Position, Record, Step, is_of_forks};
use crate::storage::signer::{SignerStatus, UnsureReason};
use crate::storage::{KvStore, LedgerStore, Owner, Signer};
use crate::types::ids::{Era, Height, Round};
use serde_json::json;
use std::path::PathBuf;

/// What `timed signer init` is told about before it is done.
const CONDITIONS: &str = "a new signer store knows nothing of what this key has signed. Make one only if no copy of the old store runs \
     anywhere, and all other masternodes can be reached. A wrong use makes this masternode sign twice, which is punished. With \
     four or more masternodes, of which enough remember, none of this is needed: a node without its store asks them, and votes \
     again after two blocks. If the conditions hold, add --i-know";

fn operator_file(config: &Config, datadir: &DataDir) -> PathBuf {
    let given = config.masternode.operator_key.clone();
    given.unwrap_or_else(|| datadir.operator_key())
}

/// What the store holds. Exit 1: this masternode would abstain.
pub(super) fn status(config: &Config) -> Result<(Output, Exit), CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    let file = operator_file(config, &datadir);
    let has_key = file.exists();
    let owner = match has_key {
        true => keys::operator_name(&keys::load(&file, KeyKind::Operator)?),
        false => Owner::default(),
    };
    let found = KvStore::status(&datadir.signer(), owner)?;
    let may_sign = match (&found, has_key) {
        (_, false) => {
            Err("there is no operator key: this node follows and does not vote".to_owned())
        }
        (None, true) => {
            Err("there is no signer store: a node abstains until it is safe to vote".to_owned())
        }
        (
            Some(SignerStatus {
                signer: Signer::Unsure(why),
                ..
            }),
            true,
        ) => Err(why.to_string()),
        (
            Some(SignerStatus {
                signer: Signer::Sure,
                ..
            }),
            true,
        ) => Ok(()),
    };
    let exit = match may_sign {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failure,
    };
    let may = may_sign.as_ref().err().map_or("yes", String::as_str);
    let bound = found.as_ref().map(|found| found.bound);
    let records = found.as_ref().map(|found| found.records);
    let id = found.as_ref().map(|found| hex::encode(&found.id));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = vec![
        row("store", datadir.signer().display().to_string()),
        row("id", id.clone().unwrap_or_else(|| "-".into())),
        row(
            "bound to a host",
            bound.map_or("-".into(), |bound| bound.to_string()),
        ),
        row(
            "records",
            records.map_or("-".into(), |records| records.to_string()),
        ),
        row("may sign", may.to_owned()),
    ];
    let output = Output {
        text: table(&["signer", ""], rows),
        json: json!({
            "store": datadir.signer(), "id": id, "bound": bound, "records": records,
            "may_sign": may_sign.is_ok(), "reason": may_sign.err(),
        }),
    };
    Ok((output, exit))
}

/// B7 step 6: a new store that signs nothing at or below `above`.
pub(super) fn init(config: &Config, above: u64, i_know: bool) -> Result<String, CommandError> {
    if !i_know {
        return Err(CommandError::new(Exit::Usage, CONDITIONS));
    }
    let datadir = DataDir::new(&config.node.datadir);
    datadir.create()?;
    let _lock = datadir.lock()?;
    let operator = keys::load(&operator_file(config, &datadir), KeyKind::Operator)?;
    let name = keys::operator_name(&operator);
    let _operator_lock = lock_operator_key(&name)?;
    let refuse = |text: String| Err(CommandError::new(Exit::Failure, text));
    let mut era = Era(0);
    if datadir.ledger().exists() {
        let genesis = load_genesis(config)?;
        let ledger = LedgerStore::open(&datadir.ledger(), config.storage.map_size, &genesis)?;
        era = ledger.state().tip.era;
        let tip = ledger.tip();
        if above < tip.0 {
            // Its certificates may hold votes of this key, which a lower mark would not know of.
            return refuse(format!(
                "this node's own ledger reaches height {tip}: give --above {tip} or more"
            ));
        }
    }
    let (store, signer) = KvStore::open(&datadir.signer(), name)?;
    if signer == Signer::Sure {
        return refuse("the signer store is in order: nothing was changed".into());
    }
    let held = store.load()?;
    let mark = held
        .iter()
        .find_map(|(key, value)| match Record::read(key, value) {
            Ok(Record::HighWater(position)) => Some(position.height),
            _ => None,
        });
    if let Some(mark) = mark.filter(|mark| mark.0 > above) {
        return refuse(format!(
            "the store that is there knows of height {mark}: give --above {mark} or more"
        ));
    }
    let record = Record::HighWater(Position {
        era,
        height: Height(above),
        round: Round(u32::MAX),
        step: Step::Precommit,
    });
    // A fork stays known; what another key has said of it is not this one's word.
    let foreign = signer == Signer::Unsure(UnsureReason::OtherKey);
    let mut records = vec![(record.key(), record.value())];
    let kept = |key: &[u8]| is_of_forks(key) && !(foreign && key.first() == Some(&b's'));
    records.extend(held.into_iter().filter(|(key, _)| kept(key)));
    store.renew(&records)?;
    Ok(format!(
        "a new signer store is in {}: it signs nothing at or below height {above}\n",
        datadir.signer().display()
    ))
}
