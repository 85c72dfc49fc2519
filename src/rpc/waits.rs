//! What a wait waits for: whether it has come true, and what is answered then or when the time is over.

use crate::rpc::error::{RpcError, code};
use crate::rpc::finality::{self, State};
use crate::rpc::node::{Node, NodeView};
use crate::rpc::reader::Chain;
use crate::rpc::waiters::Until;
use serde_json::{Value, json};

fn tip(view: &NodeView) -> Value {
    json!({"hash": view.tip.id.to_string(), "height": view.tip.height.0})
}

/// The outcome, if it has come true.
pub fn look(node: &dyn Node, until: Until) -> Option<Result<Value, RpcError>> {
    let view = node.view();
    match until {
        Until::Deadline => None,
        Until::TipIsNot(id) => (view.tip.id != id).then(|| Ok(tip(&view))),
        Until::Height(height) => (view.tip.height >= height).then(|| Ok(tip(&view))),
        Until::Final(txid) => {
            let found = match finality::find(&Chain::new(node, &view), node, &txid) {
                Ok(found) => found,
                Err(error) => return Some(Err(error.into())),
            };
            match &found.state {
                State::Final | State::Archived => Some(Ok(found.to_json())),
                State::Conflicted { by } => Some(Err(RpcError::new(
                    code::VERIFY,
                    format!("transaction {txid} will never be final: {by} spends an input of it"),
                )
                .reason("conflicted"))),
                _ => None,
            }
        }
    }
}

/// The outcome when the time is over.
pub fn timed_out(node: &dyn Node, until: Until) -> Result<Value, RpcError> {
    if let Some(outcome) = look(node, until) {
        return outcome;
    }
    match until {
        Until::TipIsNot(_) | Until::Height(_) => Ok(tip(&node.view())),
        Until::Deadline => Err(RpcError::new(code::MISC, "the time is over").reason("timeout")),
        Until::Final(txid) => {
            let view = node.view();
            let state = finality::find(&Chain::new(node, &view), node, &txid)?;
            let error = RpcError::new(
                code::MISC,
                format!("timed out: transaction {txid} is {}", state.state.name()),
            );
            Err(error.reason("timeout").hint(format!(
                "the network waits for {}; getconsensusinfo says more",
                view.consensus.waiting_for
            )))
        }
    }
}
