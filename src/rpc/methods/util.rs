//! Helpers that need no chain.

use crate::base::hex;
use crate::rpc::args::Args;
use crate::rpc::context::Call;
use crate::rpc::error::RpcError;
use crate::rpc::json;
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, required};
use crate::types::address::Program;
use serde_json::json;

/// Rows of this file.
pub const METHODS: &[MethodSpec] = &[MethodSpec {
    name: "validateaddress",
    category: Category::Util,
    summary: "Whether a text is an address of this network.",
    details: "",
    args: &[required("address", ArgKind::Text, "The text.")],
    result: "{ isvalid, address, scriptPubKey, isscript, iswitness, witness_version, witness_program }, or { isvalid: false, \
             error_locations, error }",
    example: "\"dtime1...\"",
    while_starting: true,
    run: validateaddress,
}];

fn validateaddress(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    Ok(match Program::from_address(args.text(0), call.network()) {
        Ok(program) => json!({
            "isvalid": true,
            "address": program.address(call.network()),
            "scriptPubKey": json::script_hex(&program),
            "isscript": program.version() == 2,
            "iswitness": true,
            "witness_version": program.version(),
            "witness_program": hex::encode(program.bytes()),
        }),
        Err(error) => json!({
            "isvalid": false,
            "error_locations": [],
            "error": error.to_string(),
        }),
    }
    .into())
}
