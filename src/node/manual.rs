//! The generated parts of man pages and the example configuration, kept fresh by tests.
//!
//! Job: render the registries (config keys, commands, exit codes, and rows of others) as mdoc, and compare them with the files of the
//! tree. Inputs: the registries. Outputs: text between markers. Never: touches a file unless TIMECOIN_REGENERATE is set.
//!
//! A page holds `.\" BEGIN GENERATED name` and `.\" END GENERATED` lines; what is between them is written by
//! `TIMECOIN_REGENERATE=1 cargo test --lib manual` (make regenerate), and a test fails when it is stale.

mod tables;

use std::fmt::Write;
use std::path::Path;

use super::cli::{self, CommandRow, OptionRow};
use super::cli_cmds;
use super::config::{Fallback, SECTIONS, keys, packaged_example};
use super::exit::Exit;
use crate::rpc::registry::{self, ArgSpec, Category, MethodSpec};

/// One entry of any registry: an RPC method, a command, an option.
pub(crate) struct Row {
    /// Name, as typed.
    pub(crate) name: String,
    /// What follows the name, as `TXID [TIMEOUT]`; may be empty.
    pub(crate) synopsis: String,
    /// What it does, in sentences.
    pub(crate) help: String,
    /// Arguments or options: (name, help).
    pub(crate) args: Vec<(String, String)>,
}

/// Text that mdoc takes as text.
pub(crate) fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('"', "\\(dq");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

/// Text lines of a paragraph, one sentence a line. A sentence ends in a full stop, so one is added where it is missing.
fn paragraph(text: &str) -> String {
    let mut out = String::new();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let stop = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    for sentence in format!("{text}{stop}").split_inclusive(". ") {
        let mut letters = sentence.trim().chars();
        let first: String = letters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .collect();
        let _ = writeln!(out, "{}", escape(&format!("{first}{}", letters.as_str())));
    }
    out
}

/// A tagged list of rows, each with its arguments as a list of its own.
pub(crate) fn render_rows(rows: &[Row]) -> String {
    let mut out = String::from(".Bl -tag -width Ds\n");
    for row in rows {
        let _ = writeln!(out, ".It Cm {}", escape(&row.name));
        if !row.synopsis.is_empty() {
            out.truncate(out.trim_end().len());
            let _ = writeln!(out, " Ar {}", escape(&row.synopsis));
        }
        out.push_str(&paragraph(&row.help));
        if !row.args.is_empty() {
            out.push_str(".Bl -tag -width Ds -compact\n");
            for (name, help) in &row.args {
                let _ = write!(out, ".It {}\n{}", name, paragraph(help));
            }
            out.push_str(".El\n");
        }
    }
    out.push_str(".El\n");
    out
}

/// An option as an item: `Fl -nodes Ar N`.
fn option_item(option: &OptionRow) -> (String, String) {
    let name = option.name.trim_start_matches('-').replace('-', "\\-");
    let value = match &option.value {
        Some(value) => format!(" Ar {}", value.to_lowercase()),
        None => String::new(),
    };
    let short = if option.name == "--help" {
        "Fl h , "
    } else {
        ""
    };
    (format!("{short}Fl \\-{name}{value}"), option.help.clone())
}

/// Options of a program itself.
fn options(rows: &[CommandRow]) -> String {
    let mut out = String::from(".Bl -tag -width Ds\n");
    for option in rows.iter().take(1).flat_map(|row| &row.options) {
        let (item, help) = option_item(option);
        let _ = write!(out, ".It {item}\n{}", paragraph(&help));
    }
    out.push_str(".El\n");
    out
}

/// Commands of a program with their options.
fn commands(rows: &[CommandRow]) -> String {
    let row = |command: &CommandRow| Row {
        name: command.name.clone(),
        synopsis: command.positionals.join(" ").to_lowercase(),
        help: command.help.clone(),
        args: command.options.iter().map(option_item).collect(),
    };
    render_rows(&rows.iter().skip(1).map(row).collect::<Vec<_>>())
}

/// The exit codes.
fn exit_codes() -> String {
    let mut out = String::from(".Bl -tag -width Ds\n");
    for exit in Exit::ALL {
        let _ = write!(out, ".It {}\n{}", exit.code(), paragraph(exit.help()));
    }
    out.push_str(".El\n");
    out
}

/// The configuration keys.
fn config() -> String {
    let mut out = String::new();
    for (section, help) in SECTIONS {
        let _ = write!(
            out,
            ".Ss [{section}]\n{}.Bl -tag -width Ds\n",
            paragraph(help)
        );
        for key in keys().iter().filter(|key| key.section == section) {
            let fallback = match key.fallback {
                Fallback::Value(value) => value,
                Fallback::Derived(from) => from,
            };
            let mut facts = format!("Value: {}.\nDefault: {fallback}.\n", key.form());
            if key.reloadable {
                facts.push_str("Reloaded by SIGHUP.\n");
            }
            let facts: Vec<String> = facts.lines().map(escape).collect();
            let _ = writeln!(
                out,
                ".It Cm {}\n{}{}",
                key.name,
                paragraph(key.help),
                facts.join("\n")
            );
        }
        out.push_str(".El\n");
    }
    out
}

/// `page` with the text between the markers of `part` replaced; None if the markers are not there.
fn splice(page: &str, part: &str, text: &str) -> Option<String> {
    let begin = format!(".\\\" BEGIN GENERATED {part}\n");
    splice_between(page, &begin, ".\\\" END GENERATED\n", text)
}

/// `page` with the text between `begin` and the next `end` replaced; None if they are not there.
fn splice_between(page: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

/// Fails if `path` (from the top of the tree) is not `fresh`; with TIMECOIN_REGENERATE set it is written instead.
pub(crate) fn assert_fresh(path: &str, fresh: &str) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let old = std::fs::read_to_string(&full).unwrap_or_default();
    if old == fresh {
        return;
    }
    if std::env::var_os("TIMECOIN_REGENERATE").is_some() {
        std::fs::write(&full, fresh).expect("the tree is writable");
        return;
    }
    let differs = old
        .lines()
        .zip(fresh.lines())
        .position(|(old, fresh)| old != fresh);
    panic!(
        "{path} is stale at line {}: run make regenerate",
        differs.unwrap_or(0) + 1
    );
}

/// Fails if a generated part of the man page `name` is stale; with TIMECOIN_REGENERATE set they are written instead.
pub(crate) fn assert_page(name: &str, parts: &[(&str, String)]) {
    let path = format!("man/{name}");
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
    let mut page = std::fs::read_to_string(full).expect("the page is there");
    for (part, text) in parts {
        page = splice(&page, part, text)
            .unwrap_or_else(|| panic!("{path} has no generated part {part}"));
    }
    assert_fresh(&path, &page);
}

/// The RPC methods by category.
fn methods() -> String {
    let mut out = String::new();
    for category in Category::ALL {
        let specs = registry::methods()
            .iter()
            .filter(|spec| spec.category == category);
        let rows: Vec<Row> = specs.map(method).collect();
        if !rows.is_empty() {
            let _ = write!(out, ".Ss {}\n{}", category.title(), render_rows(&rows));
        }
    }
    out
}

fn method(spec: &MethodSpec) -> Row {
    let argument = |arg: &ArgSpec| {
        let need = match arg.default {
            None => "required".to_owned(),
            Some(default) => format!("default: {default}"),
        };
        let help = arg.help.trim_end_matches('.');
        (
            format!("Ar {}", arg.name),
            format!("{help} ({}, {need})", arg.kind.name()),
        )
    };
    let words = spec.args.iter().map(|arg| match arg.default {
        None => arg.name.to_owned(),
        Some(_) => format!("[{}]", arg.name),
    });
    Row {
        name: spec.name.to_owned(),
        synopsis: words.collect::<Vec<_>>().join(" "),
        help: format!("{} {} Result: {}", spec.summary, spec.details, spec.result),
        args: spec.args.iter().map(argument).collect(),
    }
}

#[test]
fn timecoin_rpc_7_is_fresh() {
    assert_page("timecoin-rpc.7", &[("methods", methods())]);
}

#[test]
fn timed_8_is_fresh() {
    let parts = [
        ("options", options(&cli::commands())),
        ("commands", commands(&cli::commands())),
        ("exit codes", exit_codes()),
    ];
    assert_page("timed.8", &parts);
}

#[test]
fn timed_toml_5_is_fresh() {
    assert_page("timed.toml.5", &[("config", config())]);
}

#[test]
fn time_cli_1_is_fresh() {
    let rows = cli_cmds::commands();
    let parts = [
        ("options", options(&rows)),
        ("commands", commands(&rows)),
        ("exit codes", exit_codes()),
    ];
    assert_page("time-cli.1", &parts);
}

#[test]
fn the_example_configuration_is_fresh() {
    assert_fresh("systemd/timed.toml", &packaged_example());
}

#[test]
fn text_cannot_become_a_macro() {
    assert_eq!(escape(".Dd"), "\\&.Dd");
    assert_eq!(escape("a\\b"), "a\\eb");
    let page = "x\n.\\\" BEGIN GENERATED a\nold\n.\\\" END GENERATED\ny\n";
    let spliced = splice(page, "a", "new\n").expect("markers");
    assert!(spliced.contains("\nnew\n") && !spliced.contains("old") && spliced.ends_with("y\n"));
    assert_eq!(splice(page, "b", ""), None, "a missing part is noticed");
}
