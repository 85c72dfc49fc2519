//! The node's wallets: own addresses, own money, own payments.

use crate::base::hex;
use crate::base::limits::MEMO_BYTES_MAX;
use crate::base::time::WallMs;
use crate::rpc::args::{self, Args, amount_json, clip, signed_amount_json};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::json;
use crate::rpc::methods::transactions::{find_decided, send};
use crate::rpc::registry::{ArgKind, ArgSpec, Category, MethodSpec, Reply, optional, required};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxOutput};
use crate::wallet::{FeePolicy, Terms, Unspent, Wallet};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const OLD: &str = "Accepted for old callers, no effect.";

const SEND_ARGS: &[ArgSpec] = &[
    required("address", ArgKind::Text, "Who gets the money."),
    required("amount", ArgKind::Amount, "How much, in TIME."),
    optional("comment", ArgKind::Text, "none", OLD),
    optional("comment_to", ArgKind::Text, "none", OLD),
    optional(
        "subtractfeefromamount",
        ArgKind::Boolean,
        "false",
        "Whether the receiver bears the fee.",
    ),
    optional("replaceable", ArgKind::Boolean, "false", OLD),
    optional("conf_target", ArgKind::Integer, "1", OLD),
    optional("estimate_mode", ArgKind::Text, "unset", OLD),
    optional("avoid_reuse", ArgKind::Boolean, "false", OLD),
    optional(
        "fee_rate",
        ArgKind::Amount,
        "the network's minimum",
        "Units of 10^-8 TIME per byte.",
    ),
    optional(
        "verbose",
        ArgKind::Boolean,
        "false",
        "Whether to answer an object.",
    ),
    optional(
        "memo",
        ArgKind::Text,
        "none",
        "Text for the receiver, at most 80 bytes, public.",
    ),
];

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "listwallets",
        category: Category::Wallet,
        summary: "Names of the loaded wallets.",
        details: "With more than one, name it in the path: POST /wallet/NAME.",
        args: &[],
        result: "[\"name\", ...]",
        example: "",
        while_starting: false,
        run: listwallets,
    },
    MethodSpec {
        name: "getwalletinfo",
        category: Category::Wallet,
        summary: "A wallet in numbers.",
        details: "",
        args: &[],
        result: "{ walletname, walletversion, format, balance, unconfirmed_balance, immature_balance, txcount, keypoolsize, \
                 unlocked_until, private_keys_enabled, scanning, descriptors, encrypted, locked, synced_height, ... }",
        example: "",
        while_starting: false,
        run: getwalletinfo,
    },
    MethodSpec {
        name: "getnewaddress",
        category: Category::Wallet,
        summary: "A new address of this wallet.",
        details: "It is on disk before it is told.",
        args: &[
            optional("label", ArgKind::Text, "none", "A word for it."),
            optional(
                "address_type",
                ArgKind::Text,
                "bech32m",
                "There is one type; others are refused.",
            ),
        ],
        result: "\"address\"",
        example: "\"rent\"",
        while_starting: false,
        run: getnewaddress,
    },
    MethodSpec {
        name: "getbalance",
        category: Category::Wallet,
        summary: "What this wallet can spend.",
        details: "Final coins that no pending payment of ours spends. With minconf 0 also the change of those payments, and coins of \
                  contested blocks: a fork that is open may take those back (gettransactionfinality). What contested blocks \
                  spent of ours is in neither.",
        args: &[
            optional("dummy", ArgKind::Text, "*", "\"*\" only."),
            optional(
                "minconf",
                ArgKind::Integer,
                "1",
                "0: with unconfirmed change.",
            ),
            optional("include_watchonly", ArgKind::Boolean, "false", OLD),
            optional("avoid_reuse", ArgKind::Boolean, "false", OLD),
        ],
        result: "n (amount)",
        example: "",
        while_starting: false,
        run: getbalance,
    },
    MethodSpec {
        name: "listunspent",
        category: Category::Wallet,
        summary: "Coins of this wallet.",
        details: "Coins of contested blocks (gettransactionfinality) have 0 confirmations and are not safe. Payments take them last, as \
                  they take unconfirmed change: if the branch is lost the payment is void.",
        args: &[
            optional(
                "minconf",
                ArgKind::Integer,
                "1",
                "Least confirmations; 0: with unconfirmed change.",
            ),
            optional(
                "maxconf",
                ArgKind::Integer,
                "9999999",
                "Most confirmations.",
            ),
            optional("addresses", ArgKind::List, "all", "Only these addresses."),
            optional("include_unsafe", ArgKind::Boolean, "true", OLD),
            optional(
                "query_options",
                ArgKind::Object,
                "none",
                "{ minimumAmount, maximumAmount, maximumCount }",
            ),
        ],
        result: "[{ txid, vout, address, label, scriptPubKey, amount, confirmations, spendable, solvable, safe, coinbase }]",
        example: "",
        while_starting: false,
        run: listunspent,
    },
    MethodSpec {
        name: "sendtoaddress",
        category: Category::Wallet,
        summary: "Pays to an address.",
        details: "The payment is on disk before it is sent, and sent again until it is final. waittransactionfinality tells \
                  when that is.",
        args: SEND_ARGS,
        result: "\"txid\", or { txid, fee, fee_reason }",
        example: "\"dtime1...\" 1.5",
        while_starting: false,
        run: sendtoaddress,
    },
    MethodSpec {
        name: "gettransaction",
        category: Category::Wallet,
        summary: "A payment of this wallet.",
        details: "One that a fork took back (B6) is not final and has no confirmations until it is decided again; walletconflicts names the \
                  decided transaction that made it impossible, if one did. One that an open fork may take back is contested: not final, 0 \
                  confirmations, with fork_height.",
        args: &[
            required("txid", ArgKind::Hex, "The transaction's id."),
            optional("include_watchonly", ArgKind::Boolean, "false", OLD),
            optional(
                "verbose",
                ArgKind::Boolean,
                "false",
                "Whether to decode it.",
            ),
        ],
        result: "{ amount, fee, confirmations, blockhash, blockheight, blocktime, txid, wtxid, walletconflicts, time, \
                 timereceived, bip125-replaceable, details: [{ address, category, amount, label, vout, fee }], hex, decoded, final, fork_height if contested }",
        example: "\"txid\"",
        while_starting: false,
        run: gettransaction,
    },
];

/// The wallet a call is for: the one in the path, or the only one.
pub(super) fn wallet(call: &Call<'_>) -> Result<Arc<Mutex<Wallet>>, RpcError> {
    let names = call.node().wallet_names();
    let name = match (call.wallet, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, []) => {
            return Err(RpcError::new(
                code::WALLET_NOT_FOUND,
                "No wallet is loaded. Load a wallet using loadwallet or create a new one with createwallet.",
            )
            .hint("see [wallet] in timed.toml"));
        }
        (None, _) => {
            return Err(RpcError::new(
                code::WALLET_NOT_NAMED,
                "Multiple wallets are loaded. Please select which wallet to use by requesting the RPC through the \
                 /wallet/<walletname> URI path.",
            )
            .hint("time-cli takes --wallet NAME; listwallets names them"));
        }
    };
    call.node().wallet(name).ok_or_else(|| {
        RpcError::new(
            code::WALLET_NOT_FOUND,
            format!(
                "Requested wallet '{}' does not exist or is not loaded",
                clip(name)
            ),
        )
    })
}

/// Blocks that a wallet is told here at most; further back it follows the node's own pace (a start, a rescan).
const BEHIND_COUNT_MAX: u64 = 64;

/// The wallet, told every block that was reported as final when the call began: its answers are not older than that.
pub(super) fn caught_up<'a>(
    call: &Call<'_>,
    wallet: &'a Mutex<Wallet>,
) -> Result<MutexGuard<'a, Wallet>, RpcError> {
    let mut wallet = wallet.lock();
    wallet.contest(call.view.contested);
    let tip = call.view.tip.height;
    let Some(mut synced) = wallet.synced() else {
        return Ok(wallet);
    };
    if tip.0.saturating_sub(synced.0) > BEHIND_COUNT_MAX {
        return Ok(wallet);
    }
    while synced < tip {
        let next = synced.next();
        let Some(block) = call.chain().block(next)? else {
            break;
        };
        wallet.observe(&block, next);
        synced = next;
    }
    Ok(wallet)
}

pub(super) fn terms(call: &Call<'_>) -> Terms {
    let genesis = &call.node().facts().genesis;
    let chain = call.node().facts().chain;
    Terms::new(chain, call.view.branch, &genesis.params, &genesis.limits)
}

fn listwallets(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    Ok(json!(call.node().wallet_names()).into())
}

fn getwalletinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let wallet = wallet(call)?;
    let wallet = caught_up(call, &wallet)?;
    let balance = wallet.balance();
    let mut out = json!({
        "walletname": wallet.name(),
        "walletversion": 1,
        "format": "timecoin",
        "balance": amount_json(balance.confirmed),
        "unconfirmed_balance": amount_json(balance.unconfirmed),
        "immature_balance": amount_json(Amount::ZERO),
        "txcount": wallet.history().len() + wallet.pending_count(),
        "keypoolsize": wallet.prepared_count(),
        "paytxfee": amount_json(Amount::ZERO),
        "private_keys_enabled": true,
        "avoid_reuse": false,
        "scanning": false,
        "descriptors": false,
        "external_signer": false,
        "blank": false,
        "encrypted": wallet.is_encrypted(),
        "locked": wallet.is_locked(),
        "pending": wallet.pending_count(),
        "coins": balance.coin_count,
        "coins_untracked": balance.untracked_count,
        "synced_height": wallet.synced().map(|height| height.0),
        "lastprocessedblock": {
            "hash": call.view.tip.id.to_string(),
            "height": call.view.tip.height.0,
        },
    });
    if wallet.is_encrypted() {
        let until = wallet.unlocked_until().map_or(0, |until| until.0 / 1_000);
        out["unlocked_until"] = json!(until);
    }
    Ok(out.into())
}

fn getnewaddress(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let kind = args.text(1);
    if !kind.is_empty() && kind != "bech32m" {
        return Err(
            RpcError::not_found(format!("Unknown address type '{}'", clip(kind)))
                .hint("the only type is bech32m"),
        );
    }
    let wallet = wallet(call)?;
    let address = wallet.lock().new_address(args.text(0))?;
    Ok(json!(address).into())
}

fn getbalance(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    if !matches!(args.text(0), "" | "*") {
        return Err(RpcError::new(
            code::MISC,
            "dummy first argument must be excluded or set to \"*\".",
        ));
    }
    let minconf = args.integer(1, 1)?;
    let wallet = wallet(call)?;
    let balance = caught_up(call, &wallet)?.balance();
    let total = if minconf <= 0 {
        balance.confirmed.plus(balance.unconfirmed)
    } else {
        Some(balance.confirmed)
    };
    Ok(amount_json(total.unwrap_or(balance.confirmed)).into())
}

/// What query_options ask for.
struct Query {
    least: Amount,
    most: Amount,
    count: usize,
}

impl Query {
    fn new(value: Option<&Value>) -> Result<Query, RpcError> {
        let amount = |name: &str, default| {
            let found = value.and_then(|options| options.get(name));
            found.map_or(Ok(default), args::amount)
        };
        let count = value.and_then(|options| options.get("maximumCount"));
        let count = count.map(|count| args::integer(count, "maximumCount"));
        Ok(Query {
            least: amount("minimumAmount", Amount::ZERO)?,
            most: amount("maximumAmount", Amount(u64::MAX))?,
            count: match count.transpose()? {
                None => usize::MAX,
                Some(count) => usize::try_from(count)
                    .map_err(|_| RpcError::parameter("maximumCount must not be negative"))?,
            },
        })
    }
    fn wants(&self, value: Amount) -> bool {
        value >= self.least && value <= self.most
    }
}

fn listunspent(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let (minconf, maxconf) = (args.integer(0, 1)?, args.integer(1, 9_999_999)?);
    let mut wanted = BTreeSet::new();
    let list = args.get(2).and_then(Value::as_array);
    for item in list.map(Vec::as_slice).unwrap_or_default() {
        let text = item.as_str();
        let text = text.ok_or_else(|| RpcError::wrong_type("addresses must be strings"))?;
        wanted.insert(args::program(text, call.network())?);
    }
    let query = Query::new(args.get(4))?;
    let wallet = wallet(call)?;
    let wallet = caught_up(call, &wallet)?;
    let contested = |coin: &Unspent| coin.height.and_then(|at| call.view.contested_from(at));
    let confirmations = |coin: &Unspent| {
        let made = coin.height.map(|height| call.view.confirmations(height));
        i64::try_from(made.unwrap_or(0)).unwrap_or(i64::MAX)
    };
    let mut out = Vec::new();
    for coin in wallet.unspent() {
        let depth = confirmations(&coin);
        let program = coin.output.program;
        let asked = wanted.is_empty() || wanted.contains(&program);
        if depth < minconf || depth > maxconf || !asked || coin.held {
            continue;
        }
        if !query.wants(coin.output.value) {
            continue;
        }
        if out.len() >= query.count {
            break;
        }
        out.push(json!({
            "txid": coin.outpoint.txid.to_string(),
            "vout": coin.outpoint.vout,
            "address": program.address(call.network()),
            "label": wallet.label(&program),
            "scriptPubKey": json::script_hex(&program),
            "amount": amount_json(coin.output.value),
            "confirmations": depth,
            "spendable": !wallet.is_locked(),
            "solvable": true,
            "safe": contested(&coin).is_none(),
            "coinbase": coin.coinbase,
        }));
    }
    Ok(Value::Array(out).into())
}

fn sendtoaddress(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let program = args::program(args.text(0), call.network())?;
    let value = args.amount(1)?;
    if value == Amount::ZERO {
        return Err(RpcError::wrong_type("Invalid amount for send"));
    }
    let memo = args.text(11).as_bytes();
    if memo.len() > MEMO_BYTES_MAX {
        return Err(RpcError::parameter(format!(
            "a memo has at most {MEMO_BYTES_MAX} bytes"
        )));
    }
    // Units per byte, with decimals: 10^-8 of it is a unit per 10^8 bytes.
    let rate = args.get(9).map(args::amount).transpose()?;
    let policy = FeePolicy {
        rate_per_kb: rate.map(|rate| rate.0.div_ceil(100_000)),
        subtract_from: if args.boolean(4, false) {
            vec![0]
        } else {
            Vec::new()
        },
    };
    let output = TxOutput { value, program };
    let wallet = wallet(call)?;
    let sent = {
        let mut wallet = caught_up(call, &wallet)?;
        wallet.send(&[output], memo, &policy, &terms(call), call.now)?
    };
    let txid = sent.tx.txid;
    if let Err(error) = send(call, sent.tx) {
        // What is only late stays pending and is sent again; what is refused frees its coins.
        if error.reason != Some("busy") && error.reason != Some("stopping") {
            wallet.lock().abandon(&txid);
        }
        return Err(error);
    }
    if args.boolean(10, false) {
        let reason = if rate.is_some() {
            "fee_rate"
        } else {
            "network minimum"
        };
        return Ok(json!({
            "txid": txid.to_string(),
            "fee": amount_json(sent.fee),
            "fee_reason": reason,
        })
        .into());
    }
    Ok(json!(txid.to_string()).into())
}

/// What a wallet remembers of a transaction.
struct Remembered {
    time: WallMs,
    debit: Amount,
    credit: Amount,
    fee: Option<Amount>,
    tx: Option<Tx>,
}

fn remembered(wallet: &Wallet, txid: &Txid) -> Option<Remembered> {
    let void = wallet.void(txid).map(|void| &void.entry);
    if let Some(entry) = wallet.pending_entry(txid).or(void) {
        return Some(Remembered {
            time: entry.created,
            debit: entry.debit,
            credit: entry.credit,
            fee: entry.fee,
            tx: Some(entry.tx.clone()),
        });
    }
    let entry = wallet.history().get(txid)?;
    Some(Remembered {
        time: entry.time,
        debit: entry.debit,
        credit: entry.credit,
        fee: entry.fee,
        tx: None,
    })
}

/// What each output means to the wallet, as Bitcoin Core lists it: paid out, received, or change (left out).
fn details(call: &Call<'_>, wallet: &Wallet, tx: &Tx, known: &Remembered) -> Vec<Value> {
    let sender = known.debit > Amount::ZERO;
    let mut out = Vec::new();
    for (vout, output) in tx.body().outputs.iter().enumerate() {
        let own = wallet.address_info(&output.program);
        let units = i128::from(output.value.0);
        let row = |category: &str, units: i128| {
            json!({
                "address": output.program.address(call.network()),
                "category": category,
                "amount": signed_amount_json(units),
                "label": wallet.label(&output.program),
                "vout": vout,
                "abandoned": false,
            })
        };
        let is_change = own.as_ref().is_some_and(|info| info.change);
        if sender && !is_change {
            let mut sent = row("send", -units);
            if let Some(fee) = known.fee {
                sent["fee"] = signed_amount_json(-i128::from(fee.0));
            }
            out.push(sent);
        }
        if own.is_some() && !(sender && is_change) {
            let coinbase = tx.body().inputs.is_empty();
            out.push(row(if coinbase { "generate" } else { "receive" }, units));
        }
    }
    out
}

fn gettransaction(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid: Txid = args.id(0, "txid")?;
    let wallet = wallet(call)?;
    let decided = find_decided(call, &txid)?;
    let wallet = caught_up(call, &wallet)?;
    let missing = || RpcError::not_found("Invalid or non-wallet transaction id");
    let known = remembered(&wallet, &txid).ok_or_else(missing)?;
    let tx = decided.as_ref().map(|d| d.tx.clone()).or(known.tx.clone());
    let tx = tx.ok_or_else(|| Call::not_kept("Transaction"))?;
    let fee = i128::from(known.fee.unwrap_or_default().0);
    let net = i128::from(known.credit.0) - i128::from(known.debit.0) + fee;
    let at = decided.as_ref().map(|d| d.block.header.height);
    let fork = at.and_then(|height| call.view.contested_from(height));
    let conflict = wallet.void(&txid);
    let conflicts: Vec<String> = conflict.iter().map(|void| void.by.to_string()).collect();
    let mut out = json!({
        "amount": signed_amount_json(net),
        "confirmations": 0,
        "txid": txid.to_string(),
        "wtxid": tx.wtxid.to_string(),
        "walletconflicts": conflicts,
        "time": known.time.0 / 1_000,
        "timereceived": known.time.0 / 1_000,
        "bip125-replaceable": "no",
        "final": decided.is_some() && fork.is_none(),
        "details": details(call, &wallet, &tx, &known),
        "hex": hex::encode(&codec::encode(&tx)),
        "lastprocessedblock": {
            "hash": call.view.tip.id.to_string(),
            "height": call.view.tip.height.0,
        },
    });
    if known.fee.is_some() && known.debit > Amount::ZERO {
        out["fee"] = signed_amount_json(-fee);
    }
    if let Some(d) = &decided {
        let header = &d.block.header;
        let index = d.block.transactions.iter().position(|t| t.txid == txid);
        out["confirmations"] = json!(call.view.confirmations(header.height));
        out["blockhash"] = json!(d.id.to_string());
        out["blockheight"] = json!(header.height.0);
        out["blockindex"] = json!(index);
        out["blocktime"] = json!(header.time.0 / 1_000);
    } else {
        out["trusted"] = json!(known.fee.is_some());
    }
    json::contest(&mut out, fork);
    if args.boolean(2, false) {
        out["decoded"] = json::transaction(&tx, None, call.network());
    }
    Ok(out.into())
}
