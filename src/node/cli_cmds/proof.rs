//! `time-cli proof`: fetch finality proofs, and check them without any node.
//!
//! Job: files in, verdict out. Inputs: a proof file, the genesis file of the network. Outputs: what is proved, or why nothing is. Never: asks
//! a node when it verifies.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::client::Client;
use super::super::exit::Exit;
use super::args::{ProofExport, ProofVerify, TimeCli};
use super::connect;
use super::output::{CliError, Output, pairs, seconds};
use crate::base::limits::GENESIS_BYTES_MAX;
use crate::base::time::WallMs;
use crate::node::trust::parse_root;
use crate::rpc::proof::{PROOF_BYTES_MAX, Proof, ProofError, Verdict, verify as judge};
use crate::types::genesis::Genesis;

/// Fetches a proof from the node.
pub(super) fn export(
    client: &mut Client,
    options: &ProofExport,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let trusted = options.trusted.as_deref().unwrap_or_default();
    let params = json!([options.txid, trusted, options.contested]);
    let proof = client.call("getfinalityproof", params)?;
    let Some(file) = &options.out else {
        output.value(&proof);
        return Ok(());
    };
    let text = serde_json::to_string_pretty(&proof).unwrap_or_else(|_| proof.to_string());
    std::fs::write(file, text + "\n")
        .map_err(|error| CliError::new(Exit::Io, format!("cannot write {file}: {error}")))
}

/// Checks a proof.
pub(super) fn verify(
    given: &TimeCli,
    options: &ProofVerify,
    now_ms: u64,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let genesis_path = match &options.genesis {
        Some(path) => PathBuf::from(path),
        None => connect::config(given)?.node.genesis,
    };
    let data = |e: String| CliError::new(Exit::Data, e);
    let trusted = options.trusted.as_deref().map(parse_root).transpose();
    let trusted = trusted.map_err(|e| CliError::new(Exit::Usage, e))?;
    let genesis = read(&genesis_path, GENESIS_BYTES_MAX)?;
    let genesis = Genesis::from_toml(&genesis)
        .map_err(|e| data(format!("{}: {e}", genesis_path.display())))?;
    let text = read(Path::new(&options.file), PROOF_BYTES_MAX)?;
    let verdict = Proof::from_json(&text).and_then(|proof| judge(&genesis, &proof, trusted));
    match verdict {
        Ok(verdict) => {
            let mut value = verdict.to_json();
            value["root_stale"] = json!(verdict.is_stale(WallMs(now_ms)));
            output.either(&value, || people(&verdict, now_ms));
            Ok(())
        }
        Err(error @ ProofError::Format(_)) => Err(data(format!("{}: {error}", options.file))),
        Err(error) => {
            let text = format!("{} proves nothing: {error}", options.file);
            Err(CliError::new(Exit::Failure, text))
        }
    }
}

fn people(verdict: &Verdict, now_ms: u64) -> String {
    let age = |ms: u64| seconds(now_ms.saturating_sub(ms));
    let mut rows = vec![
        ("proof", "valid: the transaction is final".to_owned()),
        ("transaction", verdict.txid.to_string()),
        (
            "block",
            format!(
                "{} at height {}, {} ago",
                verdict.block,
                verdict.height,
                age(verdict.time.0)
            ),
        ),
        (
            "signed by",
            format!("power {} of {}", verdict.signed, verdict.total),
        ),
        (
            "trusted root",
            format!(
                "{}, {} old, {} changes of the validator set since",
                verdict.root_text(),
                age(verdict.root_time.0),
                verdict.step_count
            ),
        ),
    ];
    if verdict.is_stale(WallMs(now_ms)) {
        let text = "the root is older than the trusting period: whoever held its keys may have sold them since. A proof from a \
                    block that you know to be final proves more (--trusted)";
        rows.push(("warning", text.to_owned()));
    }
    pairs(&rows)
}

/// A text file of at most `limit` bytes; `-` is standard input.
pub(super) fn read(path: &Path, limit: usize) -> Result<String, CliError> {
    let failed = |error: std::io::Error| {
        let exit = if error.kind() == std::io::ErrorKind::InvalidData {
            Exit::Data
        } else {
            Exit::Io
        };
        CliError::new(exit, format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    let mut take = |from: &mut dyn Read| from.take(limit as u64 + 1).read_to_string(&mut text);
    if path == Path::new("-") {
        take(&mut std::io::stdin().lock()).map_err(failed)?;
    } else {
        take(&mut std::fs::File::open(path).map_err(failed)?).map_err(failed)?;
    }
    if text.len() > limit {
        return Err(CliError::new(
            Exit::Data,
            format!("{} is larger than {limit} bytes", path.display()),
        ));
    }
    Ok(text)
}
