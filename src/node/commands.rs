//! What `timed` does beside running a node.
//!
//! Job: carry an invocation out; one error type, with the exit code. Inputs: what the command line asks for. Outputs: data on standard
//! output (a table for a terminal, JSON for a pipe), messages on standard error, an exit code. Never: reads a configuration for a
//! command that needs none.

mod init;
mod prune;
mod rebuild;
mod recover;
mod signer;
mod snapshot;
mod topology;
mod trust;
mod verify;

use crate::node::cli::{Command, Invocation};
use crate::node::config::{Config, ConfigError, Inputs, Settings, print_config};
use crate::node::exit::Exit;
use crate::node::{devnet, run, testnet};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// What happened and what to do.
    pub message: String,
    /// How the program ends.
    pub exit: Exit,
}

impl CommandError {
    /// A failure.
    pub fn new(exit: Exit, message: impl Into<String>) -> CommandError {
        CommandError {
            message: message.into(),
            exit,
        }
    }

    /// The system refused to `verb` a file.
    pub fn io(verb: &str, path: &Path, error: &std::io::Error) -> CommandError {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Io,
        };
        CommandError::new(exit, format!("cannot {verb} {}: {error}", path.display()))
    }
}

macro_rules! command_errors {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for CommandError {
            fn from(error: $error) -> CommandError {
                CommandError::new(error.exit(), error.to_string())
            }
        }
    )*};
}
command_errors!(
    ConfigError,
    crate::node::datadir::DataDirError,
    crate::node::files::FileError,
    crate::node::keys::KeyError,
    crate::node::provision::ProvisionError,
);

impl From<crate::storage::StorageError> for CommandError {
    fn from(error: crate::storage::StorageError) -> CommandError {
        CommandError::new(exit_of(error.exit_code()), error.to_string())
    }
}

impl From<run::RunError> for CommandError {
    fn from(error: run::RunError) -> CommandError {
        CommandError::new(exit_of(error.exit), error.message)
    }
}

fn exit_of(code: u8) -> Exit {
    let exit = Exit::ALL.into_iter().find(|exit| exit.code() == code);
    exit.unwrap_or(Exit::Failure)
}

/// Data in two forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// For a terminal, lines ended.
    pub text: String,
    /// For a pipe.
    pub json: Value,
}

/// A table for people, every line ended.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(head.to_vec());
    table.add_rows(rows);
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// Does what the command line asks for. The result is the process's exit code.
pub fn execute(invocation: Invocation) -> u8 {
    if let Command::Node = invocation.command {
        return match Config::load(&Inputs::of_process(invocation.flags)) {
            Ok(config) => run::run(&config),
            Err(error) => fail(&error.into()),
        };
    }
    match command(invocation) {
        Ok(exit) => exit.code(),
        Err(error) => fail(&error),
    }
}

fn command(invocation: Invocation) -> Result<Exit, CommandError> {
    let flags = invocation.flags;
    // These make or find a network; a configuration of some node is not theirs.
    match &invocation.command {
        Command::Devnet(options) => return devnet::run(options, flags.log),
        Command::DevnetControl { dir, action } => {
            return Ok(show(&devnet::act(dir.as_deref(), action)?));
        }
        Command::Testnet(options) => {
            let wrong = |text| CommandError::new(Exit::Usage, text);
            let network = flags.network.map(|name| name.parse().map_err(wrong));
            print(&testnet::make(options, network.transpose()?)?);
            return Ok(Exit::Success);
        }
        _ => {}
    }
    let settings = Settings::load(&Inputs::of_process(flags))?;
    let config = Config::from_settings(&settings)?;
    match invocation.command {
        Command::PrintConfig => print(&print_config(&settings)),
        Command::CheckConfig => print("the configuration is valid\n"),
        Command::Init => print(&init::init(&config)?),
        Command::SignerStatus => {
            let (output, exit) = signer::status(&config)?;
            show(&output);
            return Ok(exit);
        }
        Command::SignerInit { above, i_know } => print(&signer::init(&config, above, i_know)?),
        Command::Topology => return Ok(show(&topology::topology(&config)?)),
        Command::Recover { branch, i_know } => {
            return Ok(show(&recover::recover(&config, &branch, i_know)?));
        }
        Command::Trust { block } => print(&trust::trust(&config, &block)?),
        Command::DbVerify => return Ok(show(&verify::verify(&config)?)),
        Command::DbPrune { blocks } => return Ok(show(&prune::prune(&config, blocks)?)),
        Command::SnapshotCreate { dir } => return Ok(show(&snapshot::create(&config, dir)?)),
        Command::SnapshotLoad { dir } => return Ok(show(&snapshot::load(&config, &dir)?)),
        Command::DbRebuild => return Ok(show(&rebuild::rebuild(&config)?)),
        Command::Node
        | Command::Testnet(_)
        | Command::Devnet(_)
        | Command::DevnetControl { .. } => {}
    }
    Ok(Exit::Success)
}

fn show(output: &Output) -> Exit {
    match std::io::stdout().is_terminal() {
        true => print(&output.text),
        false => print(&format!("{:#}\n", output.json)),
    }
    Exit::Success
}

/// Writes data to standard output. A reader that has gone away is no failure.
pub fn print(text: &str) {
    let _gone = std::io::stdout().write_all(text.as_bytes());
}

/// Says on standard error why the program ends.
pub fn fail(error: &CommandError) -> u8 {
    eprintln!("timed: {error}");
    error.exit.code()
}
