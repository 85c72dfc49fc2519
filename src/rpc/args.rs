//! Arguments of a call: by position or by name, checked against the method's row, then read as what they mean.
//!
//! Wrong type: -3. Unknown, double or out of range: -8. Too few or too many: -1 with the help text. As Bitcoin Core.

use crate::base::hex;
use crate::rpc::error::RpcError;
use crate::rpc::registry::MethodSpec;
use crate::types::address::{Network, Program};
use crate::types::amount::{Amount, UNITS_PER_TIME};
use serde_json::{Map, Value};
use std::str::FromStr;

/// Arguments in the order of the method's row; `None` where not given or null.
#[derive(Debug, Default)]
pub struct Args(Vec<Option<Value>>);

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn from_names(spec: &MethodSpec, mut named: Map<String, Value>) -> Result<Vec<Value>, RpcError> {
    let mut out = match named.remove("args") {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(RpcError::parameter("'args' must be a list")),
    };
    if out.len() > spec.args.len() {
        return Err(spec.usage_error());
    }
    let given = out.len();
    out.resize(spec.args.len(), Value::Null);
    for (i, arg) in spec.args.iter().enumerate() {
        let Some(value) = named.remove(arg.name) else {
            continue;
        };
        if i < given {
            return Err(RpcError::parameter(format!(
                "Parameter {} specified twice both as positional and named argument",
                arg.name
            )));
        }
        out[i] = value;
    }
    match named.keys().next() {
        None => Ok(out),
        Some(name) => Err(
            RpcError::parameter(format!("Unknown named parameter {name}"))
                .hint(format!("usage: {}", spec.usage())),
        ),
    }
}

impl Args {
    /// Takes the `params` of a request apart. `params` is a list, an object or null.
    pub fn new(spec: &MethodSpec, params: Value) -> Result<Args, RpcError> {
        let list = match params {
            Value::Array(list) => list,
            Value::Object(named) => from_names(spec, named)?,
            _ => Vec::new(),
        };
        if list.len() > spec.args.len() {
            return Err(spec.usage_error());
        }
        let mut out = Vec::with_capacity(spec.args.len());
        let mut values = list.into_iter();
        for arg in spec.args {
            let value = values.next().filter(|value| !value.is_null());
            match &value {
                None if arg.default.is_none() => return Err(spec.usage_error()),
                Some(value) if !arg.kind.accepts(value) => {
                    return Err(RpcError::wrong_type(format!(
                        "JSON value of type {} for argument {} is not of expected type {}",
                        kind_of(value),
                        arg.name,
                        arg.kind.name()
                    ))
                    .hint(format!("usage: {}", spec.usage())));
                }
                _ => out.push(value),
            }
        }
        Ok(Args(out))
    }

    /// Argument `i`, if given.
    pub fn get(&self, i: usize) -> Option<&Value> {
        self.0.get(i).and_then(Option::as_ref)
    }
    /// Argument `i` as text, empty if not given.
    pub fn text(&self, i: usize) -> &str {
        self.get(i).and_then(Value::as_str).unwrap_or("")
    }
    /// Argument `i` as a boolean.
    pub fn boolean(&self, i: usize, default: bool) -> bool {
        self.get(i).and_then(Value::as_bool).unwrap_or(default)
    }
    /// Argument `i` as a whole number.
    pub fn integer(&self, i: usize, default: i64) -> Result<i64, RpcError> {
        match self.get(i) {
            None => Ok(default),
            Some(value) => integer(value, "the number"),
        }
    }
    /// Argument `i` as a verbosity: booleans count 0 and 1.
    pub fn verbosity(&self, i: usize, default: i64) -> Result<i64, RpcError> {
        match self.get(i) {
            Some(Value::Bool(flag)) => Ok(i64::from(*flag)),
            _ => self.integer(i, default),
        }
    }
    /// Argument `i` as a whole number from 0.
    pub fn count(&self, i: usize, default: u64, name: &str) -> Result<u64, RpcError> {
        let found = self.integer(i, i64::try_from(default).unwrap_or(i64::MAX))?;
        u64::try_from(found)
            .map_err(|_| RpcError::parameter(format!("{name} must not be negative")))
    }
    /// Argument `i` as a 32-byte id in hex.
    pub fn id<T: FromStr<Err = hex::HexError>>(&self, i: usize, name: &str) -> Result<T, RpcError> {
        id(self.text(i), name)
    }
    /// Argument `i` as an amount.
    pub fn amount(&self, i: usize) -> Result<Amount, RpcError> {
        amount(self.get(i).unwrap_or(&Value::Null))
    }
    /// Argument `i` as bytes in hex.
    pub fn bytes(&self, i: usize, name: &str) -> Result<Vec<u8>, RpcError> {
        bytes(self.text(i), name)
    }
}

/// A whole number of 64 bits.
pub fn integer(value: &Value, name: &str) -> Result<i64, RpcError> {
    let Value::Number(number) = value else {
        return Err(RpcError::wrong_type(format!(
            "{name} is a JSON {} where a number is expected",
            kind_of(value)
        )));
    };
    let found = number.as_i64();
    found
        .ok_or_else(|| RpcError::wrong_type(format!("{name} must be a whole number, not {number}")))
}

/// A 32-byte id in hex; Bitcoin Core answers -8 for what is none.
pub fn id<T: FromStr<Err = hex::HexError>>(text: &str, name: &str) -> Result<T, RpcError> {
    text.parse().map_err(|error| match error {
        hex::HexError::Length { wanted, found } => RpcError::parameter(format!(
            "{name} must be of length {wanted} (not {found}, for '{}')",
            clip(text)
        )),
        hex::HexError::Digit(_) => RpcError::parameter(format!(
            "{name} must be hexadecimal string (not '{}')",
            clip(text)
        )),
    })
}

/// Bytes in hex.
pub fn bytes(text: &str, name: &str) -> Result<Vec<u8>, RpcError> {
    hex::decode(text).map_err(|_| {
        RpcError::parameter(format!(
            "{name} must be hexadecimal string (not '{}')",
            clip(text)
        ))
    })
}

/// The start of a text that a caller sent, so that an error never repeats a megabyte.
pub fn clip(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// An amount from a JSON number or string, through integers only. More than 8 decimals (trailing zeros aside): -3.
pub fn amount(value: &Value) -> Result<Amount, RpcError> {
    let text = match value {
        Value::Number(number) => number.as_str(),
        Value::String(text) => text,
        _ => return Err(RpcError::wrong_type("Amount is not a number or string")),
    };
    if text.starts_with('-') {
        return Err(RpcError::wrong_type("Amount out of range").hint("amounts are not negative"));
    }
    parse_units(text).ok_or_else(|| {
        RpcError::wrong_type(format!("Invalid amount '{}'", clip(text)))
            .hint("an amount has at most 8 decimals, like 12.5")
    })
}

/// Units of a decimal number, which may have an exponent as floating point numbers are printed (1e-05).
fn parse_units(text: &str) -> Option<Amount> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let bare_point = mantissa.contains('.') && decimals.is_empty();
    if whole.is_empty() || !digits(whole) || !digits(decimals) || bare_point {
        return None;
    }
    let all = format!("{whole}{decimals}");
    let significant = all.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(Amount::ZERO);
    }
    let zeros = all.len() - all.trim_end_matches('0').len();
    // The value is `significant` * 10^scale units.
    let decimals = i32::try_from(decimals.len()).ok()?;
    let scale = exponent
        .checked_sub(decimals)?
        .checked_add(i32::try_from(zeros).ok()?)?
        .checked_add(8)?;
    let units: u64 = significant.parse().ok()?;
    let factor = 10u64.checked_pow(u32::try_from(scale).ok()?)?;
    units.checked_mul(factor).map(Amount)
}

/// An amount as a JSON number with exactly 8 decimals.
pub fn amount_json(amount: Amount) -> Value {
    number(&amount.to_string())
}

/// A signed amount in units as a JSON number with exactly 8 decimals.
pub fn signed_amount_json(units: i128) -> Value {
    let sign = if units < 0 { "-" } else { "" };
    let absolute = units.unsigned_abs();
    let per_time = u128::from(UNITS_PER_TIME);
    number(&format!(
        "{sign}{}.{:08}",
        absolute / per_time,
        absolute % per_time
    ))
}

fn number(text: &str) -> Value {
    // Digits, a point and 8 digits are a JSON number; the library keeps the text as it stands.
    text.parse().map_or(Value::Null, Value::Number)
}

/// The program of an address; Bitcoin Core answers -5 for what is none.
pub fn program(text: &str, network: Network) -> Result<Program, RpcError> {
    Program::from_address(text, network)
        .map_err(|e| RpcError::not_found(format!("Invalid address '{}': {e}", clip(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::error::code;
    use crate::rpc::registry;
    use proptest::prelude::*;
    use serde_json::json;

    fn args(method: &str, params: Value) -> Result<Args, RpcError> {
        Args::new(registry::find(method).unwrap(), params)
    }

    #[test]
    fn positions_and_names_mean_the_same() {
        let a = args("getblock", json!(["aa", 2])).unwrap();
        for params in [
            json!({"blockhash": "aa", "verbosity": 2}),
            json!({"args": ["aa"], "verbosity": 2}),
        ] {
            let b = args("getblock", params).unwrap();
            assert_eq!(a.0, b.0);
        }
        assert_eq!(args("uptime", Value::Null).unwrap().0.len(), 0);
        let nulls = args("getblock", json!(["aa", null])).unwrap();
        assert_eq!(nulls.verbosity(1, 1).unwrap(), 1, "null is the default");
    }

    #[test]
    fn mistakes_get_the_codes_of_bitcoin_core() {
        let code_of = |method, params| args(method, params).unwrap_err().code;
        assert_eq!(code_of("getblock", json!([])), code::MISC, "too few");
        assert_eq!(
            code_of("getblock", json!(["a", 1, 2])),
            code::MISC,
            "too many"
        );
        assert_eq!(code_of("getblock", json!([5])), code::TYPE);
        assert_eq!(code_of("getblock", json!({"hash": "a"})), code::PARAMETER);
        let twice = json!({"args": ["a"], "blockhash": "a"});
        assert_eq!(code_of("getblock", twice), code::PARAMETER);
        let number = args("getblock", json!(["a", 1.5])).unwrap();
        assert_eq!(number.verbosity(1, 1).unwrap_err().code, code::TYPE);
        let short: Result<crate::types::ids::Txid, _> = id("00", "txid");
        assert_eq!(short.unwrap_err().code, code::PARAMETER);
    }

    #[test]
    fn amounts_are_exact_in_both_directions() {
        let parse = |text: &str| amount(&serde_json::from_str(text).unwrap());
        for (text, units) in [
            ("0.1", 10_000_000),
            ("1e-05", 1_000),
            ("1E2", 10_000_000_000),
            ("0.100000000", 10_000_000),
            ("\"12.5\"", 1_250_000_000),
            ("184467440737.09551615", u64::MAX),
            ("0", 0),
            ("0.00000000000", 0),
        ] {
            assert_eq!(parse(text), Ok(Amount(units)), "{text}");
        }
        for text in [
            "0.000000001",
            "1e-9",
            "-1",
            "184467440737.09551616",
            "1e400",
            "\"1.\"",
            "\"x\"",
            "\"\"",
            "\"1e\"",
            "\" 1\"",
            "true",
        ] {
            assert_eq!(parse(text).unwrap_err().code, code::TYPE, "{text}");
        }
        assert_eq!(
            amount_json(Amount(1_250_000_000)).to_string(),
            "12.50000000",
            "exactly 8 decimals"
        );
        assert_eq!(signed_amount_json(-1).to_string(), "-0.00000001");
    }

    proptest! {
        #[test]
        fn amounts_round_trip_through_json(units in any::<u64>()) {
            let text = amount_json(Amount(units)).to_string();
            let again: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(again.to_string(), text);
            prop_assert_eq!(amount(&again), Ok(Amount(units)));
        }

        #[test]
        fn amount_texts_never_panic(text in "\\PC{0,40}", digits in "[0-9.eE+-]{0,40}") {
            let _ = amount(&Value::String(text));
            let _ = amount(&Value::String(digits));
        }
    }
}
