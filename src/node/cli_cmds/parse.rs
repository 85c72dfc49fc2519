//! Arguments of `time-cli` -> what to do.
//!
//! Job: tell a command for people from a method of the node, accept the options of bitcoin-cli with one dash. Inputs: the arguments.
//! Outputs: [`Parsed`] or a sentence. Never: executes anything.

use argh::{ArgsInfo, FromArgs};

use super::super::cli::{CommandRow, OptionRow, normalise, rows_of};
use super::args::{Sub, TimeCli};

/// What the command line asks for.
pub(super) enum Parsed {
    /// Print this and end with 0.
    Text(String),
    /// A command for people.
    Command(Box<TimeCli>, Box<Sub>),
    /// -getinfo.
    Info(Box<TimeCli>),
    /// A method of the node with its words.
    Method(Box<TimeCli>, String, Vec<String>),
}

/// Every command with its options. The first row is `time-cli` itself and its options.
pub fn commands() -> Vec<CommandRow> {
    rows_of(TimeCli::get_args_info())
}

/// Understands the arguments that follow the program name.
pub(super) fn parse(arguments: &[String]) -> Result<Parsed, String> {
    let rows = commands();
    let globals = rows.first().map_or(&[][..], |row| &row.options);
    let (arguments, command) = scan(arguments, globals);
    let is_method = command.is_some_and(|at| {
        let word = &arguments[at];
        !rows.iter().any(|row| row.name == *word)
    });
    let (arguments, method) = match command {
        Some(at) if is_method => {
            let (mut before, after) = (arguments[..at].to_vec(), &arguments[at + 1..]);
            let words = take_globals(after, globals, &mut before);
            (before, Some((arguments[at].clone(), words)))
        }
        _ => (arguments, None),
    };
    let arguments = normalise(&arguments, &rows)?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut given = match TimeCli::from_args(&["time-cli"], &words) {
        Ok(given) => given,
        Err(exit) if exit.status.is_ok() => return Ok(Parsed::Text(exit.output)),
        Err(exit) => return Err(exit.output.trim_end().to_owned()),
    };
    if given.version {
        return Ok(Parsed::Text(format!(
            "time-cli {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    match (method, given.sub.take(), given.getinfo) {
        (None, None, true) => Ok(Parsed::Info(Box::new(given))),
        (Some(_), _, true) | (_, Some(_), true) => {
            Err("-getinfo goes without a method or command".to_owned())
        }
        (Some((method, words)), ..) => Ok(Parsed::Method(Box::new(given), method, words)),
        (None, Some(sub), false) => Ok(Parsed::Command(Box::new(given), Box::new(sub))),
        (None, None, false) => Err("give a method or a command".to_owned()),
    }
}

/// The option of a word, and whether its value is in the same word. One dash is as good as two before the command.
fn option_of<'a>(word: &str, globals: &'a [OptionRow]) -> Option<(&'a OptionRow, bool)> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let bare = name.trim_start_matches('-');
    if bare.is_empty() || name.len() == bare.len() {
        return None;
    }
    let found = globals
        .iter()
        .find(|o| o.name.trim_start_matches('-') == bare)?;
    Some((found, word.contains('=')))
}

/// Doubles single dashes of options before the command; also where the command is.
fn scan(arguments: &[String], globals: &[OptionRow]) -> (Vec<String>, Option<usize>) {
    let mut out = Vec::with_capacity(arguments.len());
    let mut given = arguments.iter();
    while let Some(word) = given.next() {
        if !word.starts_with('-') {
            let at = out.len();
            out.push(word.clone());
            out.extend(given.cloned());
            return (out, Some(at));
        }
        match option_of(word, globals) {
            Some((option, has_value)) => {
                out.push(format!("--{}", word.trim_start_matches('-')));
                if option.value.is_some() && !has_value {
                    out.extend(given.next().cloned());
                }
            }
            None => out.push(word.clone()),
        }
    }
    (out, None)
}

/// Moves options of `time-cli` with two dashes that stand behind a method's name to `before`; the rest are the method's words. After
/// a lone `--` everything is the method's.
fn take_globals(after: &[String], globals: &[OptionRow], before: &mut Vec<String>) -> Vec<String> {
    let mut words = Vec::new();
    let mut given = after.iter();
    while let Some(word) = given.next() {
        if word == "--" {
            words.extend(given.cloned());
            break;
        }
        match option_of(word, globals).filter(|_| word.starts_with("--")) {
            Some((option, has_value)) if option.name != "--help" => {
                before.push(word.clone());
                if option.value.is_some() && !has_value {
                    before.extend(given.next().cloned());
                }
            }
            _ => words.push(word.clone()),
        }
    }
    words
}
