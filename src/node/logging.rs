//! Log lines on standard error.
//!
//! Job: format records (time or systemd priority first), filter them by a level that can change while running, count them.
//! Inputs: `log` records with key-value pairs. Outputs: lines on standard error; counts by level for the metrics.
//! Never: writes a raw control character, so text from a peer cannot forge a line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use log::kv::{Error as KvError, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

use super::config::LogFormat;
use super::exit::Exit;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another logger of this process is in place.
    #[error("a logger is already in place; set up logging once, at the start")]
    AlreadySet,
}

impl LogError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        Exit::Internal
    }
}

/// How lines begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// Time in UTC with milliseconds, and the level.
    Time,
    /// `<priority>` as systemd reads it; the journal has its own time.
    Priority,
}

/// The logger of this process: env_logger's filter and writer behind a lock, so that a reload can swap them.
struct NodeLog {
    inner: RwLock<Option<(env_logger::Logger, Prefix)>>,
    lines: [AtomicU64; 5],
}

static NODE_LOG: NodeLog = NodeLog {
    inner: RwLock::new(None),
    lines: [const { AtomicU64::new(0) }; 5],
};

impl Log for NodeLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let inner = self.inner.read();
        inner
            .as_ref()
            .is_some_and(|(logger, _)| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let inner = self.inner.read();
        if let Some((logger, _)) = inner.as_ref()
            && logger.matches(record)
        {
            if let Some(count) = self.lines.get(record.level() as usize - 1) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

/// Starts logging to standard error. `filter` is checked already (`log.level`). Once per process.
pub fn init(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let prefix = match format {
        LogFormat::Plain => Prefix::Time,
        LogFormat::Journal => Prefix::Priority,
        LogFormat::Auto if stderr_is_journal() => Prefix::Priority,
        LogFormat::Auto => Prefix::Time,
    };
    log::set_logger(&NODE_LOG).map_err(|_| LogError::AlreadySet)?;
    replace(filter, prefix);
    Ok(())
}

/// Changes the filter while running (SIGHUP, the `logging` method). The form of the lines stays.
pub fn set_filter(filter: &str) {
    let prefix = NODE_LOG.inner.read().as_ref().map(|(_, prefix)| *prefix);
    if let Some(prefix) = prefix {
        replace(filter, prefix);
    }
}

/// Lines written since the start, by level.
pub fn line_counts() -> [(Level, u64); 5] {
    [
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
        Level::Trace,
    ]
    .map(|level| {
        let count = NODE_LOG.lines.get(level as usize - 1);
        (
            level,
            count.map_or(0, |count| count.load(Ordering::Relaxed)),
        )
    })
}

fn replace(filter: &str, prefix: Prefix) {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    builder.format(move |buffer, record| {
        let line = line(record, prefix);
        match prefix {
            Prefix::Time => writeln!(buffer, "{} {line}", buffer.timestamp_millis()),
            Prefix::Priority => writeln!(buffer, "{line}"),
        }
    });
    let logger = builder.build();
    let level = logger.filter();
    *NODE_LOG.inner.write() = Some((logger, prefix));
    log::set_max_level(level.max(LevelFilter::Off));
}

/// One line, without the time.
fn line(record: &Record<'_>, prefix: Prefix) -> String {
    let mut line = match prefix {
        Prefix::Time => format!("{:5} ", record.level()),
        Prefix::Priority => format!("<{}>", priority(record.level())),
    };
    let target = record
        .target()
        .strip_prefix("timecoin::")
        .unwrap_or(record.target());
    let _ = write!(Printable(&mut line), "{target}: {}", record.args());
    let _ = record.key_values().visit(&mut Pairs(&mut line));
    line
}

/// The syslog priority that systemd reads.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Writes ` key=value` for each pair.
struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let value = value.to_string();
        let plain = !value.is_empty() && !value.contains([' ', '"', '=']);
        let mut out = Printable(self.0);
        let _ = if plain {
            write!(out, " {key}={value}")
        } else {
            write!(out, " {key}=\"{}\"", value.replace('"', "'"))
        };
        Ok(())
    }
}

/// Escapes control characters on their way into a line.
struct Printable<'a>(&'a mut String);

impl std::fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// True if standard error is the stream that systemd gave this process (sd-journal's JOURNAL_STREAM convention).
fn stderr_is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| names_stream(&stream, stderr.dev(), stderr.ino()))
}

/// True if `stream` is `DEVICE:INODE` of this file.
fn names_stream(stream: &str, device: u64, inode: u64) -> bool {
    let parts = stream
        .split_once(':')
        .and_then(|(d, i)| Some((d.parse().ok()?, i.parse().ok()?)));
    parts == Some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(prefix: Prefix, level: Level, message: &str, pairs: &[(&str, &str)]) -> String {
        line(
            &Record::builder()
                .level(level)
                .target("timecoin::net::tls")
                .args(format_args!("{message}"))
                .key_values(&pairs)
                .build(),
            prefix,
        )
    }

    #[test]
    fn lines_carry_level_module_and_pairs() {
        let plain = record(
            Prefix::Time,
            Level::Info,
            "peer connected",
            &[("peer", "7")],
        );
        assert_eq!(plain, "INFO  net::tls: peer connected peer=7");
        let journal = record(
            Prefix::Priority,
            Level::Warn,
            "slow",
            &[("why", "disk is full")],
        );
        assert_eq!(journal, "<4>net::tls: slow why=\"disk is full\"");
    }

    #[test]
    fn text_of_a_peer_cannot_forge_a_line() {
        let line = record(
            Prefix::Priority,
            Level::Info,
            "agent\n<3>forged",
            &[("name", "a\nb\u{1b}[2J")],
        );
        assert!(
            !line.chars().any(char::is_control),
            "control characters are escaped: {line}"
        );
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names_stream("8:42", 8, 42));
        for stream in ["", "8", "8:43", "9:42", "x:y"] {
            assert!(!names_stream(stream, 8, 42), "{stream} is not this stream");
        }
    }

    #[test]
    fn filters_change_while_running_and_lines_are_counted() {
        init("error", LogFormat::Plain).expect("first logger of this process");
        let count = |level: Level| line_counts()[level as usize - 1].1;
        let before = count(Level::Debug);
        log::debug!(target: "logging-test", "filtered out");
        assert_eq!(count(Level::Debug), before, "below the filter: not counted");
        set_filter("error,logging-test=debug");
        log::debug!(target: "logging-test", pair = 1; "let through");
        assert_eq!(count(Level::Debug), before + 1, "a reload takes effect");
        set_filter("off");
        assert!(init("info", LogFormat::Plain).is_err(), "only one logger");
    }
}
