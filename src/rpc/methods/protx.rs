//! protx: masternodes are registered, changed and let go by transactions (M1, M2). Names and argument orders are Dash's
//! where it has the concept; what Dash has and we have not must be left empty.

use crate::rpc::args::{Args, amount_json};
use crate::rpc::context::Call;
use crate::rpc::error::RpcError;
use crate::rpc::methods::protx_make::{
    register, register_fund, register_prepare, register_submit, revoke, sign, update_registrar,
    update_service,
};
use crate::rpc::methods::wallet::wallet;
use crate::rpc::node::MasternodeView;
use crate::rpc::registry::{ArgKind, ArgSpec, Category, MethodSpec, Reply, optional, required};
use crate::rpc::standing::{self, Why};
use crate::types::address::Program;
use crate::types::ids::*;
use serde_json::{Value, json};

const COLLATERAL_HASH: ArgSpec = required(
    "collateralHash",
    ArgKind::Hex,
    "Transaction that made the coin that becomes the collateral.",
);
const COLLATERAL_INDEX: ArgSpec = required(
    "collateralIndex",
    ArgKind::Integer,
    "Its output. The coin is spent: its whole TIME are locked in the registry, what is beyond pays the fee.",
);
const SERVICE: ArgSpec = required(
    "ipAndPort",
    ArgKind::Text,
    "Where peers reach the masternode, as host:port.",
);
const OWNER: ArgSpec = required(
    "ownerAddress",
    ArgKind::Text,
    "Address of one key, which signs changes and may stay offline; empty: a new address of the wallet.",
);
const OPERATOR: ArgSpec = required(
    "operatorPubKey",
    ArgKind::Text,
    "Public key of the masternode's operator key (timed init shows it); empty: that of this node.",
);
const VOTING: ArgSpec = required(
    "votingAddress",
    ArgKind::Text,
    "There is no voting key: empty, or the owner's address.",
);
const REWARD: ArgSpec = required(
    "operatorReward",
    ArgKind::Verbosity,
    "There is no share of the operator: 0.",
);
const PAYOUT: ArgSpec = required(
    "payoutAddress",
    ArgKind::Text,
    "Where rewards are paid to; empty: a new address of the wallet.",
);
const FEE_SOURCE: ArgSpec = optional(
    "feeSourceAddress",
    ArgKind::Text,
    "any coins of the wallet",
    "Pay the fee from coins of this address only.",
);
const SUBMIT: ArgSpec = optional(
    "submit",
    ArgKind::Boolean,
    "true",
    "false: nothing is sent; the answer is what register_prepare answers.",
);
const PRO_TX_HASH: ArgSpec = required("proTxHash", ArgKind::Hex, "The masternode's id.");
const NO_KEY: ArgSpec = optional(
    "operatorKey",
    ArgKind::Text,
    "none",
    "Must be empty: the owner signs, and secret keys never travel over RPC.",
);

const SENT: &str = "\"txid\", or with submit false what register_prepare answers.";
const PREPARED: &str = "{ tx, txid, kind, network, chain, branch, inputs: [{ txid, vout, amount, address }], fee, owner, payload, \
     signMessage, possessionMessage, missing: [{ role (input, owner, operator), key, address, message, input }], complete, \
     collateralAddress, collateralAmount }";

/// Rows of this file.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "protx register_prepare",
        category: Category::Masternodes,
        summary: "Makes an unsigned registration, so that the collateral's key can stay offline.",
        details: "Nothing is signed, sent or reserved. Each entry of missing names a key and the 32-byte message that it signs; \
                  time-cli masternode sign makes the signatures on hosts without a node, from this answer and a key file. \
                  register_submit takes them. The fee is paid by the wallet, or by what the coin holds beyond whole TIME.",
        args: &[
            COLLATERAL_HASH,
            COLLATERAL_INDEX,
            SERVICE,
            OWNER,
            OPERATOR,
            VOTING,
            REWARD,
            PAYOUT,
            FEE_SOURCE,
        ],
        result: PREPARED,
        example: "txid 0 \"203.0.113.5:24100\" \"\" \"operatorkey\" \"\" 0 \"\"",
        while_starting: false,
        run: register_prepare,
    },
    MethodSpec {
        name: "protx register_submit",
        category: Category::Masternodes,
        summary: "Completes a prepared registry transaction and sends it.",
        details: "The wallet signs for its coins and for an owner key that it holds, the node for its own operator key. \
                  Registry transactions wait in the mempool for the next slot block. If signatures are missing, the error \
                  names their keys and messages.",
        args: &[
            required("tx", ArgKind::Hex, "The transaction, hex."),
            optional(
                "sig",
                ArgKind::TextOrList,
                "none",
                "A signature made elsewhere, 64 bytes in hex, or a list of them; each finds its place.",
            ),
        ],
        result: "\"txid\": of a registration this is the masternode's id, proTxHash.",
        example: "\"0100...\" '[\"a1b2...\"]'",
        while_starting: false,
        run: register_submit,
    },
    MethodSpec {
        name: "protx register",
        category: Category::Masternodes,
        summary: "Registers a masternode with a coin of the wallet as collateral.",
        details: "Works at once if the wallet holds the coin's key and the node the operator key; else use register_prepare.",
        args: &[
            COLLATERAL_HASH,
            COLLATERAL_INDEX,
            SERVICE,
            OWNER,
            OPERATOR,
            VOTING,
            REWARD,
            PAYOUT,
            FEE_SOURCE,
            SUBMIT,
        ],
        result: SENT,
        example: "txid 0 \"203.0.113.5:24100\" \"\" \"\" \"\" 0 \"\"",
        while_starting: false,
        run: register,
    },
    MethodSpec {
        name: "protx register_fund",
        category: Category::Masternodes,
        summary: "Registers a masternode with collateral that the wallet pays.",
        details: "",
        args: &[
            required(
                "collateralAddress",
                ArgKind::Text,
                "Where the collateral returns to after the masternode has left; empty: a new address of the wallet.",
            ),
            SERVICE,
            OWNER,
            OPERATOR,
            VOTING,
            REWARD,
            PAYOUT,
            optional(
                "fundAddress",
                ArgKind::Text,
                "any coins of the wallet",
                "Pay from coins of this address only.",
            ),
            SUBMIT,
            optional(
                "amount",
                ArgKind::Amount,
                "the least collateral",
                "Collateral in TIME; whole TIME count as voting power.",
            ),
        ],
        result: SENT,
        example: "\"\" \"203.0.113.5:24100\" \"\" \"\" \"\" 0 \"\"",
        while_starting: false,
        run: register_fund,
    },
    MethodSpec {
        name: "protx update_service",
        category: Category::Masternodes,
        summary: "Changes where a masternode is reached.",
        details: "Holds from the slot block that has it. A masternode outside the set has to be reached there anew before it counts \
                  as present.",
        args: &[
            PRO_TX_HASH,
            SERVICE,
            NO_KEY,
            optional(
                "operatorPayoutAddress",
                ArgKind::Text,
                "none",
                "Must be empty: there is no share of the operator.",
            ),
            FEE_SOURCE,
            SUBMIT,
        ],
        result: SENT,
        example: "proTxHash \"203.0.113.6:24100\"",
        while_starting: false,
        run: update_service,
    },
    MethodSpec {
        name: "protx update_registrar",
        category: Category::Masternodes,
        summary: "Changes a masternode's operator key or payout address.",
        details: "A new operator key has to sign too; it is in force from the height after the slot block. The old one stays \
                  punishable for what it signed.",
        args: &[
            PRO_TX_HASH,
            required(
                "operatorPubKey",
                ArgKind::Text,
                "The new operator key; empty: no change.",
            ),
            VOTING,
            required(
                "payoutAddress",
                ArgKind::Text,
                "The new payout address; empty: no change.",
            ),
            FEE_SOURCE,
            SUBMIT,
        ],
        result: SENT,
        example: "proTxHash \"\" \"\" \"dtime1...\"",
        while_starting: false,
        run: update_registrar,
    },
    MethodSpec {
        name: "protx revoke",
        category: Category::Masternodes,
        summary: "Lets a masternode go: its collateral returns after unbonding. Cannot be taken back.",
        details: "It keeps its power until the set can let it go (at most a third leaves at a slot block); the unbonding counts \
                  from then.",
        args: &[
            PRO_TX_HASH,
            NO_KEY,
            optional(
                "reason",
                ArgKind::Integer,
                "0",
                "Accepted for old callers, no effect.",
            ),
            FEE_SOURCE,
            SUBMIT,
        ],
        result: SENT,
        example: "proTxHash",
        while_starting: false,
        run: revoke,
    },
    MethodSpec {
        name: "protx sign",
        category: Category::Masternodes,
        summary: "Adds the wallet's signatures to a prepared registry transaction and sends nothing.",
        details: "Needs nothing of the chain, so it works on a node that is kept offline.",
        args: &[required(
            "document",
            ArgKind::Object,
            "What register_prepare answered.",
        )],
        result: PREPARED,
        example: "'{\"tx\": \"0100...\", ...}'",
        while_starting: false,
        run: sign,
    },
    MethodSpec {
        name: "protx list",
        category: Category::Masternodes,
        summary: "The registry by id.",
        details: "",
        args: &[
            optional(
                "type",
                ArgKind::Text,
                "registered",
                "registered: all that are not leaving; valid: those with power; wallet: those of this wallet; all.",
            ),
            optional(
                "detailed",
                ArgKind::Boolean,
                "false",
                "Whether to show entries as info does.",
            ),
            optional(
                "height",
                ArgKind::Integer,
                "the tip",
                "Only the registry at the tip is known: 0 or its height.",
            ),
        ],
        result: "[\"proTxHash\", ...], or a list of what info answers.",
        example: "valid true",
        while_starting: false,
        run: list,
    },
    MethodSpec {
        name: "protx info",
        category: Category::Masternodes,
        summary: "One registry entry.",
        details: "",
        args: &[
            PRO_TX_HASH,
            optional(
                "blockHash",
                ArgKind::Hex,
                "the tip",
                "Only the registry at the tip is known.",
            ),
        ],
        result: "{ type, proTxHash, collateralHash, collateralIndex, collateralAddress, collateralAmount, operatorReward, state: \
                 { version, service, registeredSlotIndex, status, power, accrued, burned, present, absent, jailedSince, queuedSince, \
                 leavingSince, slashedAt, releasedAt, ownerAddress, votingAddress, payoutAddress, pubKeyOwner, pubKeyOperator, \
                 formerOperators }, earning, reasons: [{ code, text }], wallet: { hasOwnerKey, ownsCollateral, ownsPayeeScript } }",
        example: "proTxHash",
        while_starting: false,
        run: info,
    },
];

fn entry_json(call: &Call<'_>, m: &MasternodeView) -> Value {
    let (e, network) = (&m.entry, call.network());
    let params = &call.node().facts().genesis.params;
    let reasons = standing::of_entry(e, call.view.slot_index, params);
    let owner = Program::Key(e.owner).address(network);
    let index = |index: Option<SlotIndex>| index.map(|i| i.0);
    let formers = e.former_operators.iter().map(|f| f.key.to_string());
    let mine = |program: &Program| match wallet(call) {
        Ok(wallet) => wallet.lock().is_own(program),
        Err(_) => false,
    };
    json!({
        "type": "Regular",
        "proTxHash": e.id.to_string(),
        "collateralHash": e.id.to_string(),
        "collateralIndex": 0,
        "collateralAddress": e.collateral.program.address(network),
        "collateralAmount": amount_json(e.locked()),
        "operatorReward": 0,
        "state": {
            "version": 1,
            "service": m.endpoint(),
            "registeredSlotIndex": e.registered.0,
            "status": m.status,
            "power": m.power.0,
            "accrued": amount_json(e.accrued),
            "burned": amount_json(e.burned),
            "present": e.present,
            "absent": e.absent,
            "jailedSince": index(standing::jailed_since(e)),
            "queuedSince": index(e.queued),
            "leavingSince": index(e.leaving),
            "slashedAt": index(e.slashed),
            "releasedAt": index(standing::released_at(e, params)),
            "ownerAddress": owner.clone(),
            "votingAddress": owner,
            "payoutAddress": e.payout.address(network),
            "pubKeyOwner": e.owner.to_string(),
            "pubKeyOperator": e.operator.to_string(),
            "formerOperators": formers.collect::<Vec<_>>(),
        },
        "earning": reasons.is_empty(),
        "reasons": reasons.iter().map(Why::to_json).collect::<Vec<_>>(),
        "wallet": {
            "hasOwnerKey": mine(&Program::Key(e.owner)),
            "ownsCollateral": mine(&e.collateral.program),
            "ownsPayeeScript": mine(&e.payout),
        },
    })
}

/// -8 for any registry but that of the tip.
fn only_tip(call: &Call<'_>, asked: Option<Height>) -> Result<(), RpcError> {
    let tip = call.view.tip.height;
    if asked.is_none_or(|height| height == Height(0) || height == tip) {
        return Ok(());
    }
    Err(RpcError::parameter(format!(
        "only the registry at the tip, height {tip}, is known"
    )))
}

fn list(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    only_tip(call, Some(Height(args.count(2, 0, "height")?)))?;
    let kind = args.text(0);
    let wallet = match kind {
        "wallet" => Some(wallet(call)?),
        _ => None,
    };
    let wanted = |m: &&MasternodeView| match (kind, &wallet) {
        (_, Some(wallet)) => {
            let wallet = wallet.lock();
            let e = &m.entry;
            [Program::Key(e.owner), e.collateral.program, e.payout]
                .iter()
                .any(|program| wallet.is_own(program))
        }
        ("valid", _) => m.power.0 > 0,
        ("all", _) => true,
        _ => !m.entry.is_leaving(),
    };
    if !matches!(kind, "" | "registered" | "valid" | "wallet" | "all") {
        return Err(RpcError::parameter("invalid type specified")
            .hint("types: registered, valid, wallet, all"));
    }
    let detailed = args.boolean(1, false);
    let shown = |m: &MasternodeView| match detailed {
        true => entry_json(call, m),
        false => json!(m.id().to_string()),
    };
    let found = call.view.masternodes.iter().filter(wanted);
    Ok(Value::Array(found.map(shown).collect()).into())
}

/// A masternode of the registry: -5 if there is none of this id.
pub(super) fn masternode<'a>(
    call: &'a Call<'_>,
    id: &MasternodeId,
) -> Result<&'a MasternodeView, RpcError> {
    let mut all = call.view.masternodes.iter();
    all.find(|m| m.id() == *id).ok_or_else(|| {
        RpcError::not_found(format!("{id} not found")).hint("protx list names the masternodes")
    })
}

fn info(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let id: MasternodeId = args.id(0, "proTxHash")?;
    if args.get(1).is_some() {
        let block: BlockId = args.id(1, "blockHash")?;
        let height = call.chain().height_of(&block)?;
        let height = height.ok_or_else(|| RpcError::not_found("Block not found"))?;
        only_tip(call, Some(height).filter(|height| height.0 > 0))?;
    }
    let found = masternode(call, &id)?;
    Ok(entry_json(call, found).into())
}
