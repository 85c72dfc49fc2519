//! The table of keys as text: `--print-config` and the commented example file.
//!
//! Job: write configuration files. Inputs: the table, or [`Settings`]. Outputs: TOML that [`super::Settings::load`] reads back.
//! Never: prints a secret (no key holds one: secrets are in files that keys name).

use std::fmt::Write;

use super::keys::{Fallback, KeySpec, SECTIONS, keys};
use super::load::Settings;

/// Width of comment lines.
const WIDTH: usize = 100;

/// Every key with the value in force and where it came from, as a configuration file.
pub fn print_config(settings: &Settings) -> String {
    let mut out = String::new();
    for (section, _) in SECTIONS {
        let _ = writeln!(out, "[{section}]");
        for key in keys_of(section) {
            let _ = match settings.get(section, key.name) {
                Some((value, source)) => writeln!(out, "{} = {value} # {source}", key.name),
                None => writeln!(out, "# {} is not set", key.name),
            };
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len() + 1);
    out
}

/// A commented configuration file: every key with its help, commented out, but for the (section, name, TOML value) in `set`.
/// `head` is the comment at the top.
pub fn example(head: &str, set: &[(&str, &str, String)]) -> String {
    let mut out = String::new();
    comment(&mut out, head);
    for (section, help) in SECTIONS {
        out.push('\n');
        comment(&mut out, help);
        let _ = writeln!(out, "[{section}]");
        for key in keys_of(section) {
            out.push('\n');
            describe(&mut out, key);
            let given = set
                .iter()
                .find(|(s, name, _)| *s == section && *name == key.name);
            let _ = match (given, key.fallback) {
                (Some((_, _, value)), _) => writeln!(out, "{} = {value}", key.name),
                (None, Fallback::Value(value)) => writeln!(out, "#{} = {value}", key.name),
                (None, Fallback::Derived(_)) => writeln!(out, "#{} =", key.name),
            };
        }
    }
    out
}

/// The example file that is installed as /etc/timecoin/timed.toml: a network of one's own, on this host, that starts as it is.
pub fn packaged_example() -> String {
    example(
        "Configuration of timed, see timed.toml(5). Lines that begin with # are comments: they show the defaults. \
         As it stands, this file starts a network of its own with one masternode on this host. \
         Check a change with: timed --config FILE --check-config",
        &[
            ("node", "network", "\"dev\"".into()),
            ("node", "datadir", "\"/var/lib/timecoin\"".into()),
        ],
    )
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static KeySpec> + '_ {
    keys().iter().filter(move |key| key.section == section)
}

fn describe(out: &mut String, key: &KeySpec) {
    comment(out, key.help);
    let mut facts = key.form();
    match key.fallback {
        Fallback::Value(value) => facts.push_str(&format!("; default {value}")),
        Fallback::Derived(from) => facts.push_str(&format!("; default: {from}")),
    }
    if key.reloadable {
        facts.push_str("; reloaded by SIGHUP");
    }
    comment(out, &facts);
}

/// `text` as comment lines of at most [`WIDTH`] columns.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
