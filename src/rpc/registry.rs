//! The one table of methods. Dispatch, `help`, man page, argument conversion of time-cli and, later, OpenRPC read it.
//!
//! Each category's rows stand beside its functions in `methods/`; here they are collected, checked and found. A method
//! that does not work is not in the table.

use crate::rpc::args::{Args, clip};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::methods;
use crate::rpc::waiters::Wait;
use serde_json::Value;
use std::sync::LazyLock;

/// The type of an argument, as JSON and as a word on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgKind {
    /// A string.
    Text,
    /// A string of hex digits.
    Hex,
    /// A whole number.
    Integer,
    /// A whole number, or a boolean for old callers (verbosity).
    Verbosity,
    /// A number or string with at most 8 decimals.
    Amount,
    /// `true` or `false`.
    Boolean,
    /// A list.
    List,
    /// An object.
    Object,
    /// A list or an object.
    ListOrObject,
    /// A string, or a list of strings.
    TextOrList,
}

impl ArgKind {
    /// The word shown in help.
    pub fn name(self) -> &'static str {
        match self {
            ArgKind::Text => "string",
            ArgKind::Hex => "hex string",
            ArgKind::Integer => "number",
            ArgKind::Verbosity => "number or boolean",
            ArgKind::Amount => "amount",
            ArgKind::Boolean => "boolean",
            ArgKind::List => "list",
            ArgKind::Object => "object",
            ArgKind::ListOrObject => "list or object",
            ArgKind::TextOrList => "string or list",
        }
    }

    /// Whether a JSON value is of this type.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            ArgKind::Text | ArgKind::Hex => value.is_string(),
            ArgKind::Integer => value.is_number(),
            ArgKind::Verbosity => value.is_number() || value.is_boolean(),
            ArgKind::Amount => value.is_number() || value.is_string(),
            ArgKind::Boolean => value.is_boolean(),
            ArgKind::List => value.is_array(),
            ArgKind::Object => value.is_object(),
            ArgKind::ListOrObject => value.is_array() || value.is_object(),
            ArgKind::TextOrList => value.is_string() || value.is_array(),
        }
    }

    /// A word of a command line as the JSON value this argument wants.
    pub fn from_word(self, word: &str) -> Result<Value, String> {
        match self {
            ArgKind::Text | ArgKind::Hex => Ok(Value::String(word.into())),
            ArgKind::TextOrList if !word.starts_with('[') => Ok(Value::String(word.into())),
            _ => {
                let parsed: Option<Value> = serde_json::from_str(word).ok();
                match parsed {
                    Some(value) if self.accepts(&value) || value.is_null() => Ok(value),
                    _ => Err(format!("'{word}' is no {}", self.name())),
                }
            }
        }
    }
}

/// One argument of a method.
#[derive(Debug, Clone, Copy)]
pub struct ArgSpec {
    /// Name, for named arguments and help.
    pub name: &'static str,
    /// Type.
    pub kind: ArgKind,
    /// `None`: it must be given. Else what holds without it, in words.
    pub default: Option<&'static str>,
    /// What it says.
    pub help: &'static str,
}

/// An argument that must be given.
pub const fn required(name: &'static str, kind: ArgKind, help: &'static str) -> ArgSpec {
    ArgSpec {
        name,
        kind,
        default: None,
        help,
    }
}

/// An argument that may be left out.
pub const fn optional(
    name: &'static str,
    kind: ArgKind,
    default: &'static str,
    help: &'static str,
) -> ArgSpec {
    ArgSpec {
        name,
        kind,
        default: Some(default),
        help,
    }
}

/// What a method is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Blocks, coins, finality.
    Chain,
    /// Transactions.
    Transactions,
    /// The mempool.
    Mempool,
    /// Masternodes and consensus.
    Masternodes,
    /// Peers.
    Network,
    /// Keys and own payments.
    Wallet,
    /// The process itself.
    Control,
    /// Helpers that need no chain.
    Util,
}

impl Category {
    /// All, in the order `help` shows them.
    pub const ALL: [Category; 8] = [
        Category::Chain,
        Category::Transactions,
        Category::Mempool,
        Category::Masternodes,
        Category::Network,
        Category::Wallet,
        Category::Control,
        Category::Util,
    ];
    /// Title in `help` and the man page.
    pub fn title(self) -> &'static str {
        match self {
            Category::Chain => "Chain",
            Category::Transactions => "Transactions",
            Category::Mempool => "Mempool",
            Category::Masternodes => "Masternodes",
            Category::Network => "Network",
            Category::Wallet => "Wallet",
            Category::Control => "Control",
            Category::Util => "Util",
        }
    }
}

/// What a method's function gives back.
#[derive(Debug)]
pub enum Reply {
    /// The answer.
    Value(Value),
    /// The answer comes later; nobody waits in a thread for it.
    Wait(Wait),
}

impl From<Value> for Reply {
    fn from(value: Value) -> Reply {
        Reply::Value(value)
    }
}

/// The function behind a method.
pub type Handler = fn(&Call<'_>, &Args) -> Result<Reply, RpcError>;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct MethodSpec {
    /// Name on the wire.
    pub name: &'static str,
    /// What it is about.
    pub category: Category,
    /// One sentence.
    pub summary: &'static str,
    /// More sentences, or empty.
    pub details: &'static str,
    /// Arguments in order.
    pub args: &'static [ArgSpec],
    /// What the result holds.
    pub result: &'static str,
    /// Arguments of an example call as words of a command line (after the name).
    pub example: &'static str,
    /// Whether it answers while the node starts.
    pub while_starting: bool,
    /// The function.
    pub run: Handler,
}

impl MethodSpec {
    /// `name "txid" ( timeout )`, as Bitcoin Core writes it.
    pub fn usage(&self) -> String {
        let mut out = self.name.to_string();
        let mut open = false;
        for arg in self.args {
            let word = match arg.kind {
                ArgKind::Text | ArgKind::Hex | ArgKind::TextOrList => {
                    format!("\"{}\"", arg.name)
                }
                ArgKind::List => format!("[{},...]", arg.name),
                ArgKind::Object | ArgKind::ListOrObject => format!("{{{},...}}", arg.name),
                _ => arg.name.to_string(),
            };
            if arg.default.is_some() && !open {
                out.push_str(" (");
                open = true;
            }
            out.push(' ');
            out.push_str(&word);
        }
        if open {
            out.push_str(" )");
        }
        out
    }

    /// The whole help text of the method.
    pub fn help(&self) -> String {
        let mut out = format!("{}\n\n{}\n", self.usage(), self.summary);
        if !self.details.is_empty() {
            out.push_str(&format!("\n{}\n", self.details));
        }
        if !self.args.is_empty() {
            out.push_str("\nArguments:\n");
        }
        for (i, arg) in self.args.iter().enumerate() {
            let need = match arg.default {
                None => "required".to_string(),
                Some(default) => format!("optional, default={default}"),
            };
            let (name, kind) = (arg.name, arg.kind.name());
            out.push_str(&format!(
                "{}. {name} ({kind}, {need}) {}\n",
                i + 1,
                arg.help
            ));
        }
        out.push_str(&format!("\nResult:\n{}\n", self.result));
        let call = format!("{} {}", self.name, self.example);
        out.push_str(&format!("\nExamples:\n> time-cli {}\n", call.trim_end()));
        out
    }

    /// The error of a call with too few or too many arguments: Bitcoin Core answers the help text with -1.
    pub fn usage_error(&self) -> RpcError {
        RpcError::new(code::MISC, self.help())
    }
}

static TABLE: LazyLock<Vec<MethodSpec>> = LazyLock::new(|| {
    let mut all: Vec<MethodSpec> = methods::GROUPS
        .iter()
        .flat_map(|group| group.iter().copied())
        .collect();
    all.sort_by_key(|spec| spec.name);
    all
});

/// Every method, by name.
pub fn methods() -> &'static [MethodSpec] {
    &TABLE
}

/// A method by name.
pub fn find(name: &str) -> Option<&'static MethodSpec> {
    let found = TABLE.binary_search_by(|spec| spec.name.cmp(name)).ok()?;
    TABLE.get(found)
}

/// What a family answers when no command of it is named.
const FAMILY_DEFAULTS: [(&str, &str); 1] = [("masternode", "status")];

/// The commands of a family: `protx` has the methods `protx list`, `protx info` and so on.
pub fn commands_of(family: &str) -> Vec<&'static str> {
    let prefix = format!("{family} ");
    let names = methods().iter().map(|spec| spec.name);
    names
        .filter_map(|name| name.strip_prefix(&prefix))
        .collect()
}

/// The method that a request means, and its parameters. A family takes its command as first parameter, or by the name
/// `command`, as Dash's `protx` and `masternode` do; `protx list` is also a name of its own.
pub fn resolve(name: &str, mut params: Value) -> Result<(&'static MethodSpec, Value), RpcError> {
    if let Some(spec) = find(name) {
        return Ok((spec, params));
    }
    let commands = commands_of(name);
    if commands.is_empty() {
        return Err(RpcError::new(code::METHOD, "Method not found")
            .hint(format!("'{}' is no method; 'help' lists them", clip(name))));
    }
    let given = match &mut params {
        Value::Array(list) if !list.is_empty() => Some(list.remove(0)),
        Value::Object(named) => match named.remove("command") {
            Some(command) => Some(command),
            None => match named.get_mut("args") {
                Some(Value::Array(list)) if !list.is_empty() => Some(list.remove(0)),
                _ => None,
            },
        },
        _ => None,
    };
    let default = FAMILY_DEFAULTS.iter().find(|(family, _)| *family == name);
    let command = match (&given, default) {
        (Some(Value::String(command)), _) => command.as_str(),
        (None | Some(Value::Null), Some((_, default))) => default,
        _ => "",
    };
    find(&format!("{name} {command}"))
        .map(|spec| (spec, params))
        .ok_or_else(|| {
            let text = format!("{name}: unknown command '{}'", clip(command));
            RpcError::parameter(text).hint(format!("commands: {}", commands.join(", ")))
        })
}

/// Words of a command line as positional arguments of `spec`. More words than arguments is an error that shows the usage.
pub fn arguments_from_words(spec: &MethodSpec, words: &[String]) -> Result<Vec<Value>, String> {
    if words.len() > spec.args.len() {
        return Err(format!("too many arguments. Usage: {}", spec.usage()));
    }
    let pairs = words.iter().zip(spec.args);
    pairs
        .map(|(word, arg)| {
            let value = arg.kind.from_word(word);
            value.map_err(|e| format!("argument {}: {e}", arg.name))
        })
        .collect()
}

/// The same for words like `name=value` (time-cli -named); words without `=` are positional.
pub fn named_arguments_from_words(spec: &MethodSpec, words: &[String]) -> Result<Value, String> {
    let mut named = serde_json::Map::new();
    let mut positional = Vec::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            positional.push(word.clone());
            continue;
        };
        let arg = spec.args.iter().find(|arg| arg.name == name);
        let arg =
            arg.ok_or_else(|| format!("unknown argument '{name}'. Usage: {}", spec.usage()))?;
        let value = arg.kind.from_word(value);
        let value = value.map_err(|e| format!("argument {name}: {e}"))?;
        if named.insert(name.into(), value).is_some() {
            return Err(format!("argument {name} is given twice"));
        }
    }
    if !positional.is_empty() {
        let args = arguments_from_words(spec, &positional)?;
        named.insert("args".into(), Value::Array(args));
    }
    Ok(Value::Object(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_row_explains_itself() {
        let names: BTreeSet<_> = methods().iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), methods().len(), "a name stands twice");
        for spec in methods() {
            assert_eq!(
                find(spec.name).map(|found| found.name),
                Some(spec.name),
                "dispatch finds every method"
            );
            assert!(
                !spec.summary.is_empty() && !spec.result.is_empty(),
                "{} has no help",
                spec.name
            );
            let mut optional = false;
            for arg in spec.args {
                assert!(!arg.help.is_empty(), "{}: {}", spec.name, arg.name);
                assert!(
                    !(optional && arg.default.is_none()),
                    "{}: a required argument follows an optional one",
                    spec.name
                );
                optional |= arg.default.is_some();
            }
            let help = spec.help();
            assert!(help.starts_with(&spec.usage()) && help.contains("time-cli"));
        }
    }

    #[test]
    fn words_become_the_json_that_the_method_wants() {
        let spec = find("getblock").unwrap();
        let words = |list: &[&str]| list.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        let args = arguments_from_words(spec, &words(&["00ff", "2"])).unwrap();
        assert_eq!(args, vec![Value::from("00ff"), serde_json::json!(2)]);
        assert!(arguments_from_words(spec, &words(&["00", "x"])).is_err());
        assert!(arguments_from_words(spec, &words(&["00", "1", "2"])).is_err());
        let named = named_arguments_from_words(spec, &words(&["00ff", "verbosity=1"])).unwrap();
        assert_eq!(named, serde_json::json!({"verbosity": 1, "args": ["00ff"]}));
        assert!(named_arguments_from_words(spec, &words(&["verbose=1"])).is_err());
    }
}
