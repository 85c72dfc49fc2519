//! How far a transaction is: pending, proposed, final, archived, contested, conflicted, dropped, unknown (protocol, section 5).

use crate::rpc::node::{Node, NodeView, ReadError, Track};
use crate::rpc::reader::Chain;
use crate::types::ids::*;
use serde_json::{Value, json};

/// The state of a transaction as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In the mempool.
    Pending,
    /// In a proposal.
    Proposed,
    /// In a decided block.
    Final,
    /// Final, and at or below a decided slot block.
    Archived,
    /// In a decided block that an open fork may take back (B6): another certificate contradicts its branch.
    Contested {
        /// Lowest height that the fork may take back.
        fork: Height,
    },
    /// An input was spent by a decided transaction.
    Conflicted {
        /// That transaction.
        by: Txid,
    },
    /// Evicted or expired; why.
    Dropped(String),
    /// Never seen here.
    Unknown,
}

impl State {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Proposed => "proposed",
            State::Final => "final",
            State::Archived => "archived",
            State::Contested { .. } => "contested",
            State::Conflicted { .. } => "conflicted",
            State::Dropped(_) => "dropped",
            State::Unknown => "unknown",
        }
    }
    /// Whether it can never be undone.
    pub fn is_final(&self) -> bool {
        matches!(self, State::Final | State::Archived)
    }
}

/// What is known of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finality {
    /// Which.
    pub txid: Txid,
    /// Its state.
    pub state: State,
    /// Its block.
    pub block: Option<(Height, BlockId)>,
    /// From first seen here to decided, while remembered.
    pub finality_ms: Option<u64>,
}

impl Finality {
    /// The answer of gettransactionfinality.
    pub fn to_json(&self) -> Value {
        let mut out = json!({
            "txid": self.txid.to_string(),
            "state": self.state.name(),
            "final": self.state.is_final(),
            "height": self.block.map(|(height, _)| height.0),
            "blockhash": self.block.map(|(_, id)| id.to_string()),
            "finality_ms": self.finality_ms,
        });
        match &self.state {
            State::Conflicted { by } => out["conflicts_with"] = json!(by.to_string()),
            State::Contested { fork } => out["fork_height"] = json!(fork.0),
            State::Dropped(why) => out["reason"] = json!(why),
            _ => {}
        }
        out
    }
}

fn decided(chain: &Chain<'_>, txid: &Txid) -> Result<Option<(Height, BlockId)>, ReadError> {
    let Some((height, _)) = chain.position_of(txid)? else {
        return Ok(None);
    };
    Ok(chain.id_at(height)?.map(|id| (height, id)))
}

/// The state of a transaction: decided blocks first, then what the node remembers. A transaction that is decided between
/// the two looks is found by a third.
pub fn find(chain: &Chain<'_>, node: &dyn Node, txid: &Txid) -> Result<Finality, ReadError> {
    let unsettled = |state| Finality {
        txid: *txid,
        state,
        block: None,
        finality_ms: None,
    };
    let mut block = decided(chain, txid)?;
    let mut stand = standing(chain.view());
    if block.is_none() {
        match node.track(txid) {
            Some(Track::Pending) => return Ok(unsettled(State::Pending)),
            Some(Track::Proposed) => return Ok(unsettled(State::Proposed)),
            Some(Track::Conflicted { by }) => return Ok(unsettled(State::Conflicted { by })),
            Some(Track::Dropped(why)) => return Ok(unsettled(State::Dropped(why))),
            None => {
                let view = node.view();
                block = decided(&Chain::new(node, &view), txid)?;
                stand = standing(&view);
            }
        }
    }
    let Some((height, id)) = block else {
        return Ok(unsettled(State::Unknown));
    };
    let (slot_height, contested) = stand;
    let state = match contested.filter(|from| height >= *from) {
        Some(fork) => State::Contested { fork },
        None if height <= slot_height => State::Archived,
        None => State::Final,
    };
    Ok(Finality {
        txid: *txid,
        state,
        block: Some((height, id)),
        finality_ms: node.finality_ms(txid),
    })
}

/// What a view says of decided blocks: the newest slot block, and what an open fork may take back.
fn standing(view: &NodeView) -> (Height, Option<Height>) {
    (view.slot_height, view.contested)
}
