//! Making, signing and sending registry transactions for the methods of `protx`.

use crate::base::hex;
use crate::base::limits::ENDPOINT_BYTES_MAX;
use crate::crypto::keys::{PublicKey, Signature};
use crate::rpc::args::{self, Args, clip};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::methods::protx::masternode;
use crate::rpc::methods::transactions::{decode, send};
use crate::rpc::methods::wallet::{caught_up, terms, wallet};
use crate::rpc::registration::{CHOICE_COUNT_MAX, Draft, DraftError, Place, Role};
use crate::rpc::registry::Reply;
use crate::types::address::Program;
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::*;
use crate::wallet::{FeePolicy, RegistryDraft, RegistryFunded, Wallet, fund_alone};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Signatures that one call may bring; a registry transaction needs no more.
const SIGNATURE_COUNT_MAX: usize = 1_002;

impl From<DraftError> for RpcError {
    fn from(error: DraftError) -> RpcError {
        let code = match error {
            DraftError::Format(_) | DraftError::Kind(_) => code::DESERIALIZATION,
            DraftError::Policy(_) | DraftError::Foreign(_) => code::PARAMETER,
        };
        RpcError::new(code, error.to_string())
    }
}

/// The wallet a call is for, if one is loaded.
fn maybe_wallet(call: &Call<'_>) -> Result<Option<Arc<Mutex<Wallet>>>, RpcError> {
    match wallet(call) {
        Ok(wallet) => Ok(Some(wallet)),
        Err(error) if error.code == code::WALLET_NOT_FOUND && call.wallet.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An address; for an empty text a new one of the wallet with this label.
fn address(call: &Call<'_>, text: &str, label: &str) -> Result<Program, RpcError> {
    if !text.is_empty() {
        return args::program(text, call.network());
    }
    let made = wallet(call)?.lock().new_address(label)?;
    args::program(&made, call.network())
}

fn key_of(program: Program, what: &str) -> Result<PublicKey, RpcError> {
    match program {
        Program::Key(key) => Ok(key),
        Program::Policy(_) => Err(RpcError::not_found(format!(
            "{what} must be an address of one key"
        ))),
    }
}

fn operator_key(call: &Call<'_>, text: &str) -> Result<PublicKey, RpcError> {
    if text.is_empty() {
        return call.node().facts().operator.ok_or_else(|| {
            RpcError::parameter("operatorPubKey is empty and this node has no operator key")
                .hint("'timed init' on the masternode's host makes one and shows it")
        });
    }
    text.parse().map_err(|_| {
        RpcError::parameter(format!(
            "operatorPubKey must be a public key, 64 hex digits (not '{}')",
            clip(text)
        ))
    })
}

/// `host:port`, so that a slip is not paid for with a fee.
fn endpoint(text: &str) -> Result<Endpoint, RpcError> {
    let fault = || {
        RpcError::parameter(format!("ipAndPort '{}' is not host:port", clip(text))).hint(format!(
            "at most {ENDPOINT_BYTES_MAX} bytes, as 203.0.113.5:24100 or [2001:db8::5]:24100"
        ))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
    let port: u16 = port.parse().map_err(|_| fault())?;
    let fine = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if host.is_empty() || port == 0 || !host.bytes().all(fine) {
        return Err(fault());
    }
    Endpoint::try_from(text.as_bytes().to_vec()).map_err(|_| fault())
}

/// What Dash has and we have not: a voting key other than the owner's, a share of the operator.
fn no_voting(call: &Call<'_>, text: &str, owner: Option<PublicKey>) -> Result<(), RpcError> {
    let same =
        !text.is_empty() && Some(args::program(text, call.network())?) == owner.map(Program::Key);
    if text.is_empty() || same {
        return Ok(());
    }
    Err(RpcError::parameter(
        "there is no voting key: leave votingAddress empty",
    ))
}

fn must_be_empty(args: &Args, i: usize, name: &str) -> Result<(), RpcError> {
    if args.text(i).is_empty() {
        return Ok(());
    }
    Err(RpcError::parameter(format!(
        "{name} must be empty: the owner's key signs, and secret keys never travel over RPC"
    ))
    .hint("time-cli masternode sign signs with a key file"))
}

/// The arguments that all registrations share, from position `at`: ipAndPort, owner, operator, voting, reward, payout.
fn registration(call: &Call<'_>, args: &Args, at: usize) -> Result<Register, RpcError> {
    let endpoint = endpoint(args.text(at))?;
    let operator = operator_key(call, args.text(at + 2))?;
    let reward = match args.get(at + 4) {
        Some(Value::Bool(_)) | None => 1,
        Some(value) => args::integer(value, "operatorReward")?,
    };
    if reward != 0 {
        return Err(RpcError::parameter(
            "there is no share of the operator: operatorReward must be 0",
        ));
    }
    let owner = key_of(
        address(call, args.text(at + 1), "masternode owner")?,
        "ownerAddress",
    )?;
    no_voting(call, args.text(at + 3), Some(owner))?;
    Ok(Register {
        owner,
        operator,
        payout: address(call, args.text(at + 5), "masternode payout")?,
        endpoint,
    })
}

fn fee_source(call: &Call<'_>, args: &Args, i: usize) -> Result<Option<Program>, RpcError> {
    match args.text(i) {
        "" => Ok(None),
        text => args::program(text, call.network()).map(Some),
    }
}

/// A registry transaction of the wallet, unsigned.
fn funded(call: &Call<'_>, draft: &RegistryDraft) -> Result<RegistryFunded, RpcError> {
    let (policy, terms) = (FeePolicy::default(), terms(call));
    match maybe_wallet(call)? {
        None => Ok(fund_alone(draft, &policy, &terms)?),
        Some(wallet) => {
            let wallet = caught_up(call, &wallet)?;
            match wallet.fund_registry(draft, &policy, &terms) {
                // A cold coin with something beyond whole TIME needs nobody else.
                Err(_) if fund_alone(draft, &policy, &terms).is_ok() => {
                    Ok(fund_alone(draft, &policy, &terms)?)
                }
                other => Ok(other?),
            }
        }
    }
}

fn draft_of(
    call: &Call<'_>,
    funded: RegistryFunded,
    owner: Option<PublicKey>,
) -> Result<Draft, RpcError> {
    let draft = Draft {
        chain: call.node().facts().chain,
        branch: call.view.branch,
        network: call.network(),
        transaction: funded.transaction,
        spent: funded.spent,
        owner,
    };
    Ok(draft.check()?)
}

/// The coin that becomes collateral, and how much of it: whole TIME.
fn collateral(call: &Call<'_>, args: &Args) -> Result<(OutPoint, TxOutput, TxOutput), RpcError> {
    let vout = u32::try_from(args.integer(1, 0)?)
        .map_err(|_| RpcError::parameter("collateralIndex cannot be negative"))?;
    let outpoint = OutPoint {
        txid: args.id(0, "collateralHash")?,
        vout,
    };
    let coin = call.chain().coin(&outpoint)?;
    let coin = coin.ok_or_else(|| {
        RpcError::not_found(format!("the coin {outpoint} does not exist or is spent"))
            .hint("it must be final; gettxout shows coins")
    })?;
    let output = coin.output;
    let least = call.node().facts().genesis.params.min_collateral_time;
    let whole = output.value.whole_time();
    if whole < least {
        return Err(RpcError::parameter(format!(
            "the coin {outpoint} holds {} TIME, the least collateral is {least} TIME",
            output.value
        )));
    }
    let locked = TxOutput {
        value: Amount::from_time(whole).unwrap_or(output.value),
        program: output.program,
    };
    Ok((outpoint, output, locked))
}

fn encoded<T: Serialize>(payload: &T) -> Vec<u8> {
    codec::encode(payload)
}

fn with_coin(call: &Call<'_>, args: &Args) -> Result<Draft, RpcError> {
    let (outpoint, output, locked) = collateral(call, args)?;
    key_of(output.program, "the collateral's coin")?;
    let fee_from = fee_source(call, args, 8)?;
    let register = registration(call, args, 2)?;
    let draft = RegistryDraft {
        kind: TxKind::Register,
        preset: vec![(outpoint, output)],
        first: Some(locked),
        payload: encoded(&register),
        auth: 1,
        fee_from,
    };
    draft_of(call, funded(call, &draft)?, None)
}

/// protx register_prepare.
pub fn register_prepare(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    Ok(with_coin(call, args)?.to_json()?.into())
}

/// protx register.
pub fn register(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let draft = || with_coin(call, args);
    choose_and_finish(call, args.boolean(9, true), draft)
}

/// protx register_fund.
pub fn register_fund(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let least = call.node().facts().genesis.params.min_collateral_time;
    let least = Amount::from_time(least).unwrap_or_default();
    let value = args.get(9).map_or(Ok(least), args::amount)?;
    if value < least {
        return Err(RpcError::parameter(format!(
            "{value} TIME is less than the least collateral, {least} TIME"
        )));
    }
    let fee_from = fee_source(call, args, 7)?;
    let register = registration(call, args, 1)?;
    let program = address(call, args.text(0), "masternode collateral")?;
    let draft = RegistryDraft {
        kind: TxKind::Register,
        preset: Vec::new(),
        first: Some(TxOutput { value, program }),
        payload: encoded(&register),
        auth: 1,
        fee_from,
    };
    wallet(call)?;
    let draft = || draft_of(call, funded(call, &draft)?, None);
    choose_and_finish(call, args.boolean(8, true), draft)
}

/// An Update or Unregister of a registered masternode, signed by its owner. Argument `fee_at` names whose coins pay the fee,
/// the one after it whether to submit.
fn change(
    call: &Call<'_>,
    args: &Args,
    id: MasternodeId,
    (kind, payload, auth): (TxKind, Vec<u8>, usize),
    fee_at: usize,
) -> Result<Reply, RpcError> {
    let fee_from = fee_source(call, args, fee_at)?;
    let owner = masternode(call, &id)?.entry.owner;
    wallet(call)?;
    let draft = RegistryDraft {
        kind,
        preset: Vec::new(),
        first: None,
        payload,
        auth,
        fee_from,
    };
    let draft = || draft_of(call, funded(call, &draft)?, Some(owner));
    choose_and_finish(call, args.boolean(fee_at + 1, true), draft)
}

/// protx update_service.
pub fn update_service(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let id: MasternodeId = args.id(0, "proTxHash")?;
    must_be_empty(args, 2, "operatorKey")?;
    must_be_empty(args, 3, "operatorPayoutAddress")?;
    let update = Update {
        id,
        operator: None,
        payout: None,
        endpoint: Some(endpoint(args.text(1))?),
    };
    let body = (TxKind::Update, encoded(&update), 1);
    change(call, args, id, body, 4)
}

/// protx update_registrar.
pub fn update_registrar(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let id: MasternodeId = args.id(0, "proTxHash")?;
    let owner = masternode(call, &id)?.entry.owner;
    no_voting(call, args.text(2), Some(owner))?;
    let operator = match args.text(1) {
        "" => None,
        text => Some(operator_key(call, text)?),
    };
    let payout = match args.text(3) {
        "" => None,
        text => Some(args::program(text, call.network())?),
    };
    if operator.is_none() && payout.is_none() {
        return Err(RpcError::parameter(
            "nothing changes: give operatorPubKey or payoutAddress",
        ));
    }
    let update = Update {
        id,
        operator,
        payout,
        endpoint: None,
    };
    let body = (
        TxKind::Update,
        encoded(&update),
        1 + usize::from(operator.is_some()),
    );
    change(call, args, id, body, 4)
}

/// protx revoke.
pub fn revoke(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let id: MasternodeId = args.id(0, "proTxHash")?;
    must_be_empty(args, 1, "operatorKey")?;
    if masternode(call, &id)?.entry.is_leaving() {
        return Err(RpcError::parameter(format!("{id} is already leaving")));
    }
    let body = (TxKind::Unregister, encoded(&Unregister { id }), 1);
    change(call, args, id, body, 3)
}

/// protx sign.
pub fn sign(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let mut draft = Draft::from_json(args.get(0).unwrap_or(&Value::Null))?;
    let facts = call.node().facts();
    if draft.chain != facts.chain || draft.network != call.network() {
        return Err(RpcError::parameter(format!(
            "the document is for another network, chain {}",
            draft.chain
        )));
    }
    let wallet = wallet(call)?;
    if sign_by_wallet(&mut draft, &wallet.lock())? == 0 {
        return Err(RpcError::new(
            code::WALLET,
            "the wallet holds no key that has to sign this",
        ));
    }
    Ok(draft.to_json()?.into())
}

/// Signatures that the wallet's keys can make; how many they are.
fn sign_by_wallet(draft: &mut Draft, wallet: &Wallet) -> Result<usize, RpcError> {
    let mut failed = None;
    let made = draft.sign_with(|place: &Place| {
        if place.role == Role::Operator {
            return None;
        }
        match wallet.key_for(&Program::Key(place.key)) {
            Ok(key) => key.map(|key| key.sign(&place.message)),
            Err(error) => {
                failed = Some(error);
                None
            }
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(made),
    }
}

/// `finish` of a draft for which coins are chosen, and chosen again if another payment was quicker.
fn choose_and_finish(
    call: &Call<'_>,
    submit: bool,
    draft: impl Fn() -> Result<Draft, RpcError>,
) -> Result<Reply, RpcError> {
    for _ in 1..CHOICE_COUNT_MAX {
        match finish(call, draft()?, submit) {
            Err(error) if error.coin_was_taken() => {}
            other => return other,
        }
    }
    finish(call, draft()?, submit)
}

/// Signs with what is at hand here, and sends; with `submit` false only shows the draft.
fn finish(call: &Call<'_>, mut draft: Draft, submit: bool) -> Result<Reply, RpcError> {
    if !submit {
        return Ok(draft.to_json()?.into());
    }
    let wallet = maybe_wallet(call)?;
    if let Some(wallet) = &wallet {
        sign_by_wallet(&mut draft, &*caught_up(call, wallet)?)?;
    }
    let (message, facts) = (draft.message(), call.node().facts());
    draft.sign_with(|place| {
        let own = place.role == Role::Operator && Some(place.key) == facts.operator;
        own.then(|| call.node().possession(&message)).flatten()
    })?;
    let missing = draft.missing()?;
    if !missing.is_empty() {
        return Err(unsigned(&missing));
    }
    let tx = Tx::new(draft.transaction);
    let txid = tx.txid;
    // Ours is on disk before it is sent, and sent again until it is final.
    let ours = wallet.filter(|wallet| {
        let wallet = wallet.lock();
        tx.body()
            .inputs
            .iter()
            .any(|input| wallet.coin(input).is_some())
    });
    if let Some(wallet) = &ours {
        wallet.lock().commit(&tx, call.now)?;
    }
    if let Err(error) = send(call, tx) {
        if let Some(wallet) = ours
            && error.reason != Some("busy")
            && error.reason != Some("stopping")
        {
            wallet.lock().abandon(&txid);
        }
        return Err(error);
    }
    Ok(json!(txid.to_string()).into())
}

/// -8 that names every key which still has to sign, and what.
fn unsigned(missing: &[Place]) -> RpcError {
    let one = |place: &Place| {
        format!(
            "{} key {} (message {})",
            place.role.name(),
            place.key,
            place.message
        )
    };
    let list: Vec<String> = missing.iter().map(one).collect();
    RpcError::parameter(format!("signatures are missing: {}", list.join(", ")))
        .reason("signatures-missing")
        .hint("prepare with submit false or register_prepare, sign elsewhere (time-cli masternode sign), then register_submit")
}

fn signatures(value: Option<&Value>) -> Result<Vec<Signature>, RpcError> {
    let texts: Vec<&Value> = match value {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().collect(),
        Some(text) => vec![text],
    };
    if texts.len() > SIGNATURE_COUNT_MAX {
        return Err(RpcError::parameter(format!(
            "at most {SIGNATURE_COUNT_MAX} signatures"
        )));
    }
    let one = |value: &Value| {
        let text = value.as_str();
        let text = text.ok_or_else(|| RpcError::wrong_type("a signature is a hex string"))?;
        let bytes = hex::decode_array(text).map_err(|_| {
            RpcError::parameter(format!("'{}' is no signature, 128 hex digits", clip(text)))
        })?;
        Ok(Signature(bytes))
    };
    let texts = texts.into_iter().filter(|value| value.as_str() != Some(""));
    texts.map(one).collect()
}

/// protx register_submit.
pub fn register_submit(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let tx = decode(args.text(0))?;
    let signatures = signatures(args.get(1))?;
    let body = tx.body();
    if !body.kind.is_registry() {
        return Err(DraftError::Kind(crate::rpc::json::kind_name(body.kind)).into());
    }
    let mut spent = Vec::with_capacity(body.inputs.len());
    for outpoint in &body.inputs {
        spent.push(spent_output(call, outpoint)?);
    }
    let payload = crate::rpc::registration::payload_of(body);
    let owner = match payload.and_then(|payload| payload.masternode()) {
        Some(id) => Some(masternode(call, &id)?.entry.owner),
        None => None,
    };
    let draft = Draft {
        chain: call.node().facts().chain,
        branch: call.view.branch,
        network: call.network(),
        transaction: tx.transaction.clone(),
        spent,
        owner,
    };
    let mut draft = draft.check()?;
    draft.add(&signatures)?;
    finish(call, draft, true)
}

/// What an input spends: a coin of the ledger, or of a transaction that waits.
fn spent_output(call: &Call<'_>, outpoint: &OutPoint) -> Result<TxOutput, RpcError> {
    if let Some(coin) = call.chain().coin(outpoint)? {
        return Ok(coin.output);
    }
    let parent = call.node().mempool_entry(&outpoint.txid);
    let output = parent.and_then(|entry| {
        let vout = usize::try_from(outpoint.vout).ok()?;
        entry.tx.body().outputs.get(vout).copied()
    });
    output.ok_or_else(|| {
        RpcError::new(
            code::VERIFY,
            format!("input {outpoint} does not exist or is already spent"),
        )
        .reason("missing-inputs")
        .hint("prepare the transaction again")
    })
}
