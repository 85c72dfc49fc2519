//! The process: help, stop, uptime, running calls, log level.

use crate::rpc::args::{Args, clip};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::registry::{self, ArgKind, Category, MethodSpec, Reply, optional};
use serde_json::json;

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "help",
        category: Category::Control,
        summary: "Lists all methods, or explains one.",
        details: "",
        args: &[optional(
            "command",
            ArgKind::Text,
            "all methods",
            "The method to explain.",
        )],
        result: "\"text\" (string) The list or the explanation.",
        example: "getblock",
        while_starting: true,
        run: help,
    },
    MethodSpec {
        name: "stop",
        category: Category::Control,
        summary: "Asks the node to stop.",
        details: "Calls that wait are answered first. The process exits with 0.",
        args: &[optional(
            "wait",
            ArgKind::Integer,
            "0",
            "Accepted for old callers, no effect.",
        )],
        result: "\"text\" (string) \"TimeCoin server stopping\".",
        example: "",
        while_starting: true,
        run: stop,
    },
    MethodSpec {
        name: "uptime",
        category: Category::Control,
        summary: "Seconds since the process started.",
        details: "",
        args: &[],
        result: "n (number) Seconds.",
        example: "",
        while_starting: true,
        run: uptime,
    },
    MethodSpec {
        name: "getrpcinfo",
        category: Category::Control,
        summary: "Calls that run now.",
        details: "",
        args: &[],
        result: "{ active_commands: [{ method, duration (microseconds) }], logpath }",
        example: "",
        while_starting: true,
        run: getrpcinfo,
    },
    MethodSpec {
        name: "logging",
        category: Category::Control,
        summary: "Shows or changes the log filter.",
        details: "A filter is a level (error, warn, info, debug, trace), or levels by module: \"info,net=debug\". The \
                  change holds until the next start or SIGHUP.",
        args: &[optional(
            "filter",
            ArgKind::Text,
            "no change",
            "The new filter.",
        )],
        result: "{ filter }",
        example: "info,consensus=debug",
        while_starting: true,
        run: logging,
    },
];

fn help(_: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let name = args.text(0);
    if !name.is_empty() {
        let text = match registry::find(name) {
            Some(spec) => spec.help(),
            None => match registry::commands_of(name).as_slice() {
                [] => format!("help: unknown command: {}", clip(name)),
                commands => family_help(name, commands),
            },
        };
        return Ok(json!(text).into());
    }
    let mut text = String::new();
    for category in Category::ALL {
        let rows = registry::methods()
            .iter()
            .filter(|m| m.category == category);
        let lines: Vec<String> = rows.map(|m| m.usage()).collect();
        if !lines.is_empty() {
            text.push_str(&format!(
                "== {} ==\n{}\n\n",
                category.title(),
                lines.join("\n")
            ));
        }
    }
    Ok(json!(text.trim_end()).into())
}

/// The usage of every command of a family.
fn family_help(name: &str, commands: &[&str]) -> String {
    let rows = commands
        .iter()
        .filter_map(|command| registry::find(&format!("{name} {command}")));
    let lines = rows.map(|spec| format!("{}\n    {}", spec.usage(), spec.summary));
    let lines: Vec<String> = lines.collect();
    format!("{name} \"command\" ...\n\n{}", lines.join("\n"))
}

fn stop(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    call.node().stop();
    Ok(json!("TimeCoin server stopping").into())
}

fn uptime(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    Ok(json!(call.node().uptime().as_secs()).into())
}

fn getrpcinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let active = call.context.active();
    let active: Vec<_> = active
        .iter()
        .map(|(method, since)| json!({"method": method, "duration": call.now.mono.since(*since)}))
        .collect();
    let path = &call.node().facts().log_path;
    Ok(json!({"active_commands": active, "logpath": path}).into())
}

fn logging(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let filter = args.text(0);
    if !filter.is_empty() {
        let set = call.node().set_log_filter(filter);
        set.map_err(|e| RpcError::new(code::PARAMETER, e))?;
    }
    Ok(json!({"filter": call.node().log_filter()}).into())
}
