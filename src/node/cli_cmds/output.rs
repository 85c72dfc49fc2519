//! What `time-cli` prints, and why it ends.
//!
//! Job: tables for a terminal, JSON for a pipe; one error type with an exit code. Inputs: rows, values, errors of the parts. Outputs:
//! text. Never: mixes data and messages.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::super::client::ClientError;
use super::super::config::ConfigError;
use super::super::exit::Exit;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// For people; empty if everything is said already.
    pub message: String,
    /// How the program ends.
    pub exit: Exit,
}

impl CliError {
    /// A failure.
    pub fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError {
            message: message.into(),
            exit,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::new(error.exit(), error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::new(error.exit(), error.to_string())
    }
}

/// Where data goes, and in which form.
pub struct Output<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// JSON, because it was asked for or because no person reads it.
    pub json: bool,
    /// JSON was asked for by name.
    pub quoted: bool,
}

impl Output<'_> {
    /// Prints text. A reader that has gone away is no failure.
    pub fn text(&mut self, text: &str) {
        let _gone = self.out.write_all(text.as_bytes());
    }
    /// Prints a value as indented JSON.
    pub fn value(&mut self, value: &Value) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
        self.text(&format!("{text}\n"));
    }
    /// Prints the result of a method as bitcoin-cli does: texts bare, nothing for null.
    pub fn result(&mut self, value: &Value) {
        match value {
            Value::Null if !self.quoted => {}
            Value::String(text) if !self.quoted => self.text(&format!("{text}\n")),
            other => self.value(other),
        }
    }
    /// Prints `value`, or for a person `text`.
    pub fn either(&mut self, value: &Value, text: impl FnOnce() -> String) {
        if self.json {
            self.value(value);
        } else {
            let text = text();
            self.text(&text);
        }
    }
}

/// Name and value, a line each.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let indent = format!("\n{:width$}  ", "");
        format!("{name:width$}  {}\n", value.replace('\n', &indent))
    };
    rows.iter().map(line).collect()
}

/// A table with a head; the columns named in `right` are numbers.
pub fn table(head: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    table.add_rows(rows);
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines();
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A duration as people say it.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}
