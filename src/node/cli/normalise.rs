//! Arguments as people type them -> arguments as argh takes them.
//!
//! Job: `--key=value` becomes two words; an option moves to the command that has it, so that it may also stand further right.
//! Inputs: the arguments and the rows of the registry. Outputs: arguments in argh's order. Never: judges an option's value.

use super::{CommandRow, OptionRow};

/// One word of the command (none for the program itself) and what belongs to it.
#[derive(Default)]
struct Level {
    word: Option<String>,
    arguments: Vec<String>,
}

/// Puts the arguments into the order that argh takes.
pub fn normalise(arguments: &[String], rows: &[CommandRow]) -> Result<Vec<String>, String> {
    let mut outer: Vec<Level> = Vec::new();
    let mut last = Level::default();
    let mut command = String::new();
    let mut given = arguments.iter();
    while let Some(argument) = given.next() {
        if !argument.starts_with('-') {
            let longer = format!("{command} {argument}").trim_start().to_owned();
            if rows.iter().any(|row| row.name == longer) {
                command = longer;
                let word = Some(argument.clone());
                outer.push(std::mem::replace(
                    &mut last,
                    Level {
                        word,
                        arguments: Vec::new(),
                    },
                ));
            } else {
                last.arguments.push(argument.clone());
            }
            continue;
        }
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if argument.starts_with("--") => (name, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        // --help belongs to the command where it stands; what is unknown is argh's to refuse.
        let Some((option, depth)) = find(name, &command, rows) else {
            last.arguments.push(argument.clone());
            continue;
        };
        let words = match outer.get_mut(depth) {
            Some(level) => &mut level.arguments,
            None => &mut last.arguments,
        };
        words.push(name.to_owned());
        match (&option.value, value) {
            (None, None) => {}
            (None, Some(_)) => return Err(format!("{name} takes no value")),
            (Some(_), Some(value)) => words.push(value),
            (Some(what), None) => {
                let next = given.next();
                words.push(
                    next.ok_or_else(|| format!("{name} needs a value: {name} {what}"))?
                        .clone(),
                );
            }
        }
    }
    outer.push(last);
    let words = |level: Level| level.word.into_iter().chain(level.arguments);
    Ok(outer.into_iter().flat_map(words).collect())
}

/// The option `name` of the innermost command around this place that has it, and how many words that command has.
fn find<'a>(name: &str, command: &str, rows: &'a [CommandRow]) -> Option<(&'a OptionRow, usize)> {
    if matches!(name, "-h" | "--help") {
        return None;
    }
    let around = |row: &&CommandRow| {
        row.name.is_empty() || command == row.name || command.starts_with(&format!("{} ", row.name))
    };
    let having = rows.iter().filter(around).filter_map(|row| {
        let option = row.options.iter().find(|option| option.name == name)?;
        Some((option, row.name.split_whitespace().count()))
    });
    having.max_by_key(|(_, depth)| *depth)
}
