//! The layers of the configuration: defaults < file < environment < flags.
//!
//! Job: gather one checked [`Value`] per key, remembering where it came from. Inputs: [`Inputs`] and the file they name.
//! Outputs: [`Settings`], or a [`ConfigError`] that names the place, the key and what to do.
//! Never: reads the process environment itself (the caller hands it in), so that a test can say what it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::{Fallback, KeySpec, SECTIONS, keys};
use super::value::{Value, check, from_text, nearest};
use crate::node::exit::Exit;

/// Prefix of the environment variables that set keys.
const VARIABLE_PREFIX: &str = "TIMED_";
/// Largest configuration file read, in bytes.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--network N`.
    pub network: Option<String>,
    /// `--datadir DIR`.
    pub datadir: Option<PathBuf>,
    /// `--log LEVEL`.
    pub log: Option<String>,
}

/// Everything a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Command line.
    pub flags: Flags,
    /// Environment: names and values. Only those that begin with `TIMED_` and hold `__` matter.
    pub environment: Vec<(String, String)>,
    /// Home directory, for the default data directory.
    pub home: Option<PathBuf>,
}

impl Inputs {
    /// The inputs of this process: `flags`, its environment and its home directory.
    pub fn of_process(flags: Flags) -> Self {
        let text = |name: std::ffi::OsString| name.into_string().ok();
        Inputs {
            flags,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect(),
            home: std::env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(PathBuf::from),
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The table of keys.
    Default,
    /// A file, at a line counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A command-line option.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path, line) => write!(f, "{}:{line}", path.display()),
            Source::Variable(name) => write!(f, "environment variable {name}"),
            Source::Flag(name) => write!(f, "option {name}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A name that is in no table.
    #[error("{place}: there is no {what} \"{name}\"{}", hint(.nearest))]
    Unknown {
        /// Where it stands.
        place: Source,
        /// "key" or "section".
        what: &'static str,
        /// The name as written.
        name: String,
        /// The known name that was probably meant.
        nearest: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("{place}: {key}: {problem}; give {expected}")]
    Invalid {
        /// Where it stands.
        place: Source,
        /// `section.name`.
        key: String,
        /// What is wrong.
        problem: String,
        /// What would be right.
        expected: String,
    },
    /// Not TOML.
    #[error("{place}: {message}; the file is TOML: [section] lines and name = value lines")]
    Syntax {
        /// Where the reader stopped.
        place: Source,
        /// What it says.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}; name another with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be one.
    #[error("{} is larger than {FILE_SIZE_MAX} bytes: that is no configuration file", .0.display())]
    TooLarge(PathBuf),
    /// There is no home directory to put the data directory in.
    #[error(
        "HOME is not set, so there is no default data directory; set node.datadir or give --datadir"
    )]
    NoHome,
    /// Two keys that do not go together.
    #[error("{0}")]
    Conflict(String),
}

impl ConfigError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        Exit::Config
    }
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => "; timed.toml(5) lists them".to_owned(),
    }
}

/// One checked value per key that has one, and where each came from. Keyed by (section, name).
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<(&'static str, &'static str), (Value, Source)>,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Reads all layers. Without `--config`, `timed.toml` of the data directory is read if it is there.
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        let mut settings = Settings {
            values: BTreeMap::new(),
            file: None,
        };
        settings.set_defaults()?;
        let mut over = Settings {
            values: BTreeMap::new(),
            file: None,
        };
        over.set_variables(&inputs.environment)?;
        over.set_flags(&inputs.flags)?;
        let file = match &inputs.flags.config {
            Some(path) => Some(path.clone()),
            None => over.file_of_datadir(inputs.home.as_deref()),
        };
        if let Some(path) = file {
            settings.set_file(&path, &read(&path)?)?;
            settings.file = Some(path);
        }
        settings.values.extend(over.values);
        super::derive::complete(&mut settings, inputs.home.as_deref())?;
        Ok(settings)
    }

    /// The value of a key, if it has one.
    pub fn get(&self, section: &str, name: &str) -> Option<&(Value, Source)> {
        self.values
            .iter()
            .find(|((s, n), _)| *s == section && *n == name)
            .map(|(_, value)| value)
    }

    /// Keys whose values differ from those of `other`: what a reload changes, or would if the key were reloadable.
    pub fn differences(&self, other: &Settings) -> Vec<&'static KeySpec> {
        let value = |settings: &Settings, key: &KeySpec| {
            settings
                .get(key.section, key.name)
                .map(|(value, _)| value.clone())
        };
        keys()
            .iter()
            .filter(|key| value(self, key) != value(other, key))
            .collect()
    }

    /// Gives `key` a value, checked; a relative path from a file is taken from the file's own directory.
    pub(super) fn set(
        &mut self,
        key: &'static KeySpec,
        value: Value,
        source: Source,
    ) -> Result<(), ConfigError> {
        if let Err(problem) = check(key.kind, &value) {
            return Err(ConfigError::Invalid {
                place: source,
                key: key.full_name(),
                problem,
                expected: key.form(),
            });
        }
        let value = match (&value, &source) {
            (Value::Text(text), Source::File(path, _)) if key.kind == super::Kind::Path => {
                beside(path, text)
            }
            _ => value,
        };
        self.values.insert((key.section, key.name), (value, source));
        Ok(())
    }

    fn set_defaults(&mut self) -> Result<(), ConfigError> {
        for key in keys() {
            if let Fallback::Value(text) = key.fallback {
                let parsed = DeValue::parse(text)
                    .ok()
                    .and_then(|value| to_value(value.get_ref()).ok());
                let value = parsed.ok_or_else(|| {
                    ConfigError::Conflict(format!("bad default of {}", key.full_name()))
                })?;
                self.set(key, value, Source::Default)?;
            }
        }
        Ok(())
    }

    fn set_variables(&mut self, environment: &[(String, String)]) -> Result<(), ConfigError> {
        for (variable, text) in environment {
            let Some((section, name)) = variable
                .strip_prefix(VARIABLE_PREFIX)
                .and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let source = Source::Variable(variable.clone());
            let key = find(&section.to_lowercase(), &name.to_lowercase(), &source)?;
            let value = from_text(key.kind, text).map_err(|problem| ConfigError::Invalid {
                place: source.clone(),
                key: key.full_name(),
                problem,
                expected: key.form(),
            })?;
            self.set(key, value, source)?;
        }
        Ok(())
    }

    fn set_flags(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        let datadir = flags
            .datadir
            .as_ref()
            .map(|dir| dir.to_string_lossy().into_owned());
        let given = [
            ("--network", "node", "network", flags.network.clone()),
            ("--datadir", "node", "datadir", datadir),
            ("--log", "log", "level", flags.log.clone()),
        ];
        for (flag, section, name, text) in given {
            if let Some(text) = text {
                let source = Source::Flag(flag);
                self.set(find(section, name, &source)?, Value::Text(text), source)?;
            }
        }
        Ok(())
    }

    fn set_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let at = |offset: usize| Source::File(path.to_owned(), line_of(text, offset));
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            place: at(error.span().map_or(0, |span| span.start)),
            message: error.message().trim().replace('\n', " "),
        })?;
        for (section, body) in table.get_ref().iter() {
            let place = at(section.span().start);
            let Some((section, _)) = SECTIONS
                .iter()
                .find(|(name, _)| *name == section.get_ref().as_ref())
            else {
                return Err(unknown(
                    "section",
                    section.get_ref(),
                    SECTIONS.iter().map(|(name, _)| *name),
                    place,
                ));
            };
            let DeValue::Table(body) = body.get_ref() else {
                return Err(ConfigError::Syntax {
                    place,
                    message: format!("{section} is a section, not a value"),
                });
            };
            for (name, value) in body.iter() {
                let place = at(name.span().start);
                let key = find(section, name.get_ref(), &place)?;
                let value = to_value(value.get_ref()).map_err(|problem| ConfigError::Invalid {
                    place: place.clone(),
                    key: key.full_name(),
                    problem: problem.to_owned(),
                    expected: key.form(),
                })?;
                self.set(key, value, place)?;
            }
        }
        Ok(())
    }

    /// `timed.toml` of the data directory that flags and environment name (or the default one), if there is such a file.
    fn file_of_datadir(&self, home: Option<&Path>) -> Option<PathBuf> {
        let text = |section, name| match self.get(section, name) {
            Some((Value::Text(text), _)) => Some(text.clone()),
            _ => None,
        };
        let datadir = match text("node", "datadir") {
            Some(datadir) => PathBuf::from(datadir),
            None => super::derive::default_datadir(
                home?,
                &text("node", "network").unwrap_or_else(|| "main".into()),
            ),
        };
        Some(datadir.join("timed.toml")).filter(|path| path.exists())
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_SIZE_MAX {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// The key of this name, or the error that offers the nearest.
fn find(section: &str, name: &str, place: &Source) -> Result<&'static KeySpec, ConfigError> {
    if let Some(key) = keys()
        .iter()
        .find(|key| key.section == section && key.name == name)
    {
        return Ok(key);
    }
    if !SECTIONS.iter().any(|(known, _)| *known == section) {
        return Err(unknown(
            "section",
            section,
            SECTIONS.iter().map(|(known, _)| *known),
            place.clone(),
        ));
    }
    let full: Vec<String> = keys().iter().map(KeySpec::full_name).collect();
    // A key in the wrong section is a slip too: offer it where it belongs.
    let elsewhere = keys()
        .iter()
        .find(|key| key.name == name)
        .map(KeySpec::full_name);
    let wrong = format!("{section}.{name}");
    let near = keys()
        .iter()
        .filter(|key| key.section == section)
        .map(|key| key.name);
    let nearest_here = nearest(name, near).map(|name| format!("{section}.{name}"));
    let nearest_all = || nearest(&wrong, full.iter().map(String::as_str)).map(str::to_owned);
    Err(ConfigError::Unknown {
        place: place.clone(),
        what: "key",
        nearest: elsewhere.or(nearest_here).or_else(nearest_all),
        name: wrong,
    })
}

fn unknown<'a>(
    what: &'static str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    place: Source,
) -> ConfigError {
    ConfigError::Unknown {
        place,
        what,
        name: name.to_owned(),
        nearest: nearest(name, known).map(str::to_owned),
    }
}

/// A TOML value as ours; the error says what it is instead.
fn to_value(value: &DeValue<'_>) -> Result<Value, &'static str> {
    match value {
        DeValue::Boolean(value) => Ok(Value::Bool(*value)),
        DeValue::String(text) => Ok(Value::Text(text.to_string())),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| "the number is negative or too large"),
        DeValue::Array(items) => {
            let item = |item: &DeValue<'_>| match item {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err("the list holds something else than strings"),
            };
            items
                .iter()
                .map(|value| item(value.get_ref()))
                .collect::<Result<_, _>>()
                .map(Value::List)
        }
        DeValue::Float(_) => Err("a number with a point does not fit"),
        DeValue::Datetime(_) => Err("a date does not fit"),
        DeValue::Table(_) => Err("a table does not fit"),
    }
}

/// A path of the file, relative to the file's own directory, so that a directory with its configuration can be copied as a whole.
fn beside(file: &Path, text: &str) -> Value {
    if text.is_empty() {
        return Value::Text(String::new());
    }
    let directory = file.parent().unwrap_or(Path::new(""));
    let path: PathBuf = directory.join(text).components().collect();
    Value::Text(path.to_string_lossy().into_owned())
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
