//! `timed recover --branch ID`: the operator's word when a fork has split the masternodes (B6 step 7). It asks the running
//! node of the data directory: a node in a fork goes on serving, and only it may sign.

use crate::node::cli_cmds::client_of;
use crate::node::commands::{CommandError, Output};
use crate::node::config::Config;
use crate::node::exit::Exit;
use serde_json::{Value, json};

/// What must be known before the word is given.
const CONDITIONS: &str = "this masternode states for good, once in this attempt, that the branch with this block stays; blocks of the \
     other branch are taken back everywhere, and payments in them are final no more. Compare 'time-cli getforkinfo' with the other \
     operators first, and agree on ONE branch: the one with more depth, or the one on which goods were handed over. Statements of \
     more than two thirds of the power that is not proved guilty are needed. If this is agreed, add --i-know";

/// States the branch by the node that runs.
pub(super) fn recover(config: &Config, branch: &str, i_know: bool) -> Result<Output, CommandError> {
    if !i_know {
        return Err(CommandError::new(Exit::Usage, CONDITIONS));
    }
    let failed = |error: &dyn std::fmt::Display, exit| CommandError::new(exit, error.to_string());
    let mut client = client_of(config).map_err(|e| failed(&e, e.exit))?;
    let answer = client.call("recoverfork", json!([branch]));
    let answer = answer.map_err(|e| failed(&e, e.exit()))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let fork = &answer["fork"];
    let lines = [
        format!(
            "stated in attempt {}: block {} stays",
            answer["attempt"],
            text(&answer["block"])
        ),
        format!(
            "for it so far: power {} of more than {} needed",
            stated(fork, &text(&answer["block"])),
            fork["needed_power"]
        ),
        text(&fork["advice"]),
    ];
    Ok(Output {
        text: lines.map(|line| line + "\n").concat(),
        json: answer,
    })
}

/// Power that has stated a block, as getforkinfo shows it.
fn stated(fork: &Value, block: &str) -> u64 {
    let branches = fork["branches"].as_array();
    let mut branches = branches.into_iter().flatten();
    let found = branches.find(|branch| branch["block"] == block);
    found
        .and_then(|branch| branch["stated"].as_u64())
        .unwrap_or_default()
}
