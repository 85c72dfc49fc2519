//! `time-cli`: everything behind its command line.
//!
//! Job: run one command or method and say how it ended. Inputs: arguments, the node over its HTTP port. Outputs: text on `out`, messages on
//! standard error, an exit code. Never: touches the files of a node but its configuration, cookie,
//! genesis and, to show possession of it, its operator key.

mod args;
mod bench;
mod connect;
mod masternode;
mod mn_args;
mod output;
mod parse;
mod people;
mod proof;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::exit::Exit;
use crate::rpc::registry;
use args::{ProofSub, Sub, TimeCli};
pub use connect::client_of;
use output::{CliError, Output};
pub use parse::commands;
use parse::{Parsed, parse};

/// Runs `time-cli` with the arguments that follow its name. `terminal`: a person reads `out`.
pub fn run(arguments: &[String], out: &mut dyn Write, terminal: bool) -> Exit {
    let done = match parse(arguments) {
        Ok(parsed) => execute(parsed, out, terminal),
        Err(text) => {
            let text = format!(
                "{text}\nRun time-cli --help for the commands and options, time-cli help for the methods."
            );
            Err(CliError::new(Exit::Usage, text))
        }
    };
    match done {
        Ok(()) => Exit::Success,
        Err(error) => {
            if !error.message.is_empty() {
                eprintln!("time-cli: {error}");
            }
            error.exit
        }
    }
}

fn execute(parsed: Parsed, out: &mut dyn Write, terminal: bool) -> Result<(), CliError> {
    let output = |given: &TimeCli, out| Output {
        out,
        json: given.json || !terminal,
        quoted: given.json,
    };
    match parsed {
        Parsed::Text(text) => {
            let _gone = out.write_all(text.as_bytes());
            Ok(())
        }
        Parsed::Info(given) => {
            people::info(&mut connect::client(&given)?, &mut output(&given, out))
        }
        Parsed::Method(given, method, words) => {
            let params = params(&given, &method, &words)?;
            let mut client = connect::client(&given)?;
            // Some methods wait for as long as they are told; only they know how long that is.
            client.set_timeout(METHOD_TIMEOUT);
            let result = client.call(&method, params)?;
            output(&given, out).result(&result);
            Ok(())
        }
        Parsed::Command(given, sub) => {
            let mut output = output(&given, out);
            command(&given, *sub, &mut output)
        }
    }
}

/// How long a method called by name may take.
const METHOD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

fn command(given: &TimeCli, sub: Sub, output: &mut Output<'_>) -> Result<(), CliError> {
    match sub {
        Sub::Status(args::Status {}) => {
            people::status(&mut connect::client(given)?, now_ms(), output)
        }
        Sub::Peers(args::Peers {}) => people::peers(&mut connect::client(given)?, output),
        Sub::Wait(args::Wait { txid, timeout }) => {
            people::wait(&mut connect::client(given)?, &txid, timeout, output)
        }
        Sub::Proof(args::Proof { sub }) => match sub {
            ProofSub::Export(options) => {
                proof::export(&mut connect::client(given)?, &options, output)
            }
            ProofSub::Verify(options) => proof::verify(given, &options, now_ms(), output),
        },
        Sub::Rpcauth(args::Rpcauth { user }) => people::rpcauth(&user, output),
        Sub::Bench(options) => bench::run(given, &options, output),
        Sub::Masternode(command) => masternode::run(given, command, output),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The words of a method as its parameters. A method that this program does not know is the node's to judge: its words go as JSON where
/// they are JSON, else as texts.
fn params(given: &TimeCli, method: &str, words: &[String]) -> Result<Value, CliError> {
    let usage = |text| CliError::new(Exit::Usage, text);
    // A command of a family stands in the method's name: `protx list`.
    if let Some((command, rest)) = words.split_first()
        && registry::find(method).is_none()
        && registry::find(&format!("{method} {command}")).is_some()
    {
        return params(given, &format!("{method} {command}"), rest).map(|params| match params {
            Value::Array(mut list) => {
                list.insert(0, command.as_str().into());
                Value::Array(list)
            }
            Value::Object(mut named) => {
                named.insert("command".into(), command.as_str().into());
                Value::Object(named)
            }
            other => other,
        });
    }
    let Some(spec) = registry::find(method) else {
        let loose = |word: &String| -> Value {
            serde_json::from_str(word).unwrap_or_else(|_| word.as_str().into())
        };
        return Ok(words.iter().map(loose).collect());
    };
    if given.named {
        return registry::named_arguments_from_words(spec, words).map_err(usage);
    }
    let list = registry::arguments_from_words(spec, words).map_err(usage)?;
    Ok(Value::Array(list))
}
