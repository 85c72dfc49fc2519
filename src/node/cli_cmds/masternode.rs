//! `time-cli masternode`: a masternode's life from key to collateral returned.
//!
//! Job: turn options into calls of protx, sign with key files, say in words how a masternode stands. Inputs: options, key files, prepared
//! documents, a client. Outputs: tables or JSON, documents, exit codes. Never: sends a secret key anywhere, or believes a document's
//! hashes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::client::{Client, ClientError};
use super::super::datadir::DataDir;
use super::super::exit::Exit;
use super::super::keys::{self, KeyError, KeyKind};
use super::args::TimeCli;
use super::connect;
use super::mn_args::{
    Keygen, Masternode, MasternodeSub, Register, RegisterSub, Sign, Unregister, Update,
};
use super::output::{CliError, Output, pairs, table};
use super::people::show;
use super::proof::read;
use crate::crypto::keys::SecretKey;
use crate::rpc::registration::{CHOICE_COUNT_MAX, DOCUMENT_BYTES_MAX, Draft, DraftError, Payload};
use crate::types::address::Program;

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> CliError {
        CliError::new(error.exit(), error.to_string())
    }
}

impl From<DraftError> for CliError {
    fn from(error: DraftError) -> CliError {
        CliError::new(Exit::Data, error.to_string())
    }
}

/// Runs a command of `time-cli masternode`.
pub(super) fn run(
    given: &TimeCli,
    command: Masternode,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    match command.sub {
        MasternodeSub::Status(_) => status(&mut connect::client(given)?, output),
        MasternodeSub::List(_) => list(&mut connect::client(given)?, output),
        MasternodeSub::Count(_) => {
            let found = connect::client(given)?.call("masternode count", json!([]))?;
            output.either(&found, || rows(&found));
            Ok(())
        }
        MasternodeSub::Register(options) => match &options.sub {
            None => register(given, &options, output),
            Some(RegisterSub::Prepare(_)) => {
                let draft = prepare(given, &options, &mut connect::client(given)?)?;
                write(&draft, options.out.as_deref(), output)
            }
            Some(RegisterSub::Submit(submit)) => {
                submit_file(&submit.file, &mut connect::client(given)?, output)
            }
        },
        MasternodeSub::Update(options) => update(given, &options, output),
        MasternodeSub::Unregister(options) => unregister(given, &options, output),
        MasternodeSub::Sign(options) => sign(given, &options, output),
        MasternodeSub::Submit(options) => {
            submit_file(&options.file, &mut connect::client(given)?, output)
        }
        MasternodeSub::Keygen(options) => keygen(given, &options, output),
    }
}

/// An object, a line for each member.
fn rows(object: &Value) -> String {
    let members = object.as_object().into_iter().flatten();
    let rows: Vec<(&str, String)> = members
        .map(|(name, value)| (name.as_str(), show(value)))
        .collect();
    pairs(&rows)
}

fn reasons(masternode: &Value) -> String {
    let list = masternode["reasons"].as_array().into_iter().flatten();
    let texts: Vec<String> = list.map(|why| show(&why["text"])).collect();
    texts.join("\n")
}

fn status(client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let found = client.call("masternode status", json!([]))?;
    let earning = found["earning"] == true;
    output.either(&found, || {
        let line = |name: &str| show(&found[name]);
        let answer = match earning {
            true => "yes".to_owned(),
            false => format!("no\n{}", reasons(&found)),
        };
        let mut lines = vec![
            ("masternode", line("proTxHash")),
            ("state", line("state")),
            ("earning", answer),
            ("signing", line("status")),
            ("operator key", line("operator")),
        ];
        if !found["proTxHash"].is_null() {
            lines.push(("endpoint", line("service")));
            lines.push(("payout", line("payee")));
            lines.push(("collateral", format!("{} TIME", line("collateral"))));
            lines.push(("earned, unpaid", format!("{} TIME", line("accrued"))));
        }
        pairs(&lines)
    });
    match earning {
        true => Ok(()),
        // What is to be said is said.
        false => Err(CliError::new(Exit::Failure, "")),
    }
}

fn list(client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let found = client.call("masternodelist", json!([]))?;
    output.either(&found, || {
        let row = |(id, m): (&String, &Value)| {
            vec![
                id.chars().take(12).collect(),
                show(&m["status"]),
                show(&m["power"]),
                show(&m["collateral"]),
                show(&m["accrued"]),
                show(&m["address"]),
                reasons(m).replace('\n', "; "),
            ]
        };
        let rows = found.as_object().into_iter().flatten().map(row).collect();
        let head = [
            "MASTERNODE",
            "STANDING",
            "POWER",
            "COLLATERAL",
            "UNPAID",
            "ENDPOINT",
            "WHY NOT EARNING",
        ];
        table(&head, &[2, 3, 4], rows)
    });
    Ok(())
}

/// The operator key file that is used without being named: that of the data directory, if it can be read.
fn default_key(given: &TimeCli) -> Option<PathBuf> {
    let config = connect::config(given).ok()?;
    let file = config.masternode.operator_key.clone();
    let file = file.unwrap_or_else(|| DataDir::new(&config.node.datadir).operator_key());
    file.exists().then_some(file)
}

/// A key of a file that people name: an operator key or a cold one.
fn load_key(file: &Path) -> Result<SecretKey, CliError> {
    let seed = match keys::load(file, KeyKind::Operator) {
        Err(KeyError::Malformed { .. }) => keys::load(file, KeyKind::Cold)?,
        other => other?,
    };
    Ok(SecretKey::from_seed(&seed))
}

/// The operator key at hand here: of the file that was named, else of the data directory if it opens.
fn operator_key(given: &TimeCli, named: Option<&String>) -> Result<Option<SecretKey>, CliError> {
    let load = |file: &Path| keys::load(file, KeyKind::Operator);
    match named {
        Some(file) => Ok(Some(SecretKey::from_seed(&*load(Path::new(file))?))),
        None => {
            let seed = default_key(given).and_then(|file| load(&file).ok());
            Ok(seed.map(|seed| SecretKey::from_seed(&seed)))
        }
    }
}

fn usage(text: impl Into<String>) -> CliError {
    CliError::new(Exit::Usage, text)
}

/// The registration that the options mean, with the operator's signature if its key is here.
fn prepare(given: &TimeCli, options: &Register, client: &mut Client) -> Result<Draft, CliError> {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    let endpoint = options.endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| usage("give --endpoint HOST:PORT"))?;
    let key = operator_key(given, options.operator_key.as_ref())?;
    let operator = match (&options.operator, &key) {
        (Some(operator), _) => operator.clone(),
        (None, Some(key)) => key.public().to_string(),
        (None, None) => String::new(),
    };
    let (owner, payout) = (text(&options.owner), text(&options.payout));
    let fee_from = text(&options.fee_from);
    let document = match &options.collateral {
        Some(coin) => {
            if options.amount.is_some() || options.collateral_address.is_some() {
                return Err(usage(
                    "--amount and --collateral-address go without --collateral: the coin says both",
                ));
            }
            let (txid, vout) = coin
                .rsplit_once(':')
                .ok_or_else(|| usage("--collateral is TXID:N"))?;
            let vout: u32 = vout.parse().map_err(|_| usage("--collateral is TXID:N"))?;
            let words = json!([
                txid, vout, endpoint, owner, operator, "", 0, payout, fee_from
            ]);
            client.call("protx register_prepare", words)?
        }
        None => {
            let back = text(&options.collateral_address);
            let mut words = json!([
                back, endpoint, owner, operator, "", 0, payout, fee_from, false
            ]);
            if let (Some(amount), Some(list)) = (&options.amount, words.as_array_mut()) {
                list.push(json!(amount));
            }
            client.call("protx register_fund", words)?
        }
    };
    signed(&document, key.as_ref())
}

/// A document of the node, with the signatures of a key that is here.
fn signed(document: &Value, key: Option<&SecretKey>) -> Result<Draft, CliError> {
    let mut draft = Draft::from_json(document)?;
    if let Some(key) = key {
        draft.sign(key)?;
    }
    Ok(draft)
}

/// What the node says to a draft; only a draft that is none is an error of this side.
fn submit(draft: &Draft, client: &mut Client) -> Result<Result<Value, ClientError>, CliError> {
    let document = draft.to_json()?;
    Ok(client.call("protx register_submit", json!([document["tx"]])))
}

fn register(given: &TimeCli, options: &Register, output: &mut Output<'_>) -> Result<(), CliError> {
    if options.out.is_some() {
        return Err(usage("--out goes with register prepare"));
    }
    let mut client = connect::client(given)?;
    make_and_submit(&mut client, output, |client| {
        prepare(given, options, client)
    })
}

/// Submits what `make` prepares; prepares it again if another payment of the wallet took its coins meanwhile.
fn make_and_submit(
    client: &mut Client,
    output: &mut Output<'_>,
    make: impl Fn(&mut Client) -> Result<Draft, CliError>,
) -> Result<(), CliError> {
    let mut choices = 1;
    loop {
        let draft = make(client)?;
        match submit(&draft, client)? {
            Err(ClientError::Rpc(failure))
                if failure.coin_was_taken() && choices < CHOICE_COUNT_MAX =>
            {
                choices += 1;
            }
            sent => return tell(&draft, &sent?, output),
        }
    }
}

/// What was sent.
fn tell(draft: &Draft, txid: &Value, output: &mut Output<'_>) -> Result<(), CliError> {
    let payload = draft.payload()?;
    let id = match payload.masternode() {
        Some(id) => json!(id.to_string()),
        None => txid.clone(),
    };
    output.either(&json!({"txid": txid, "proTxHash": id}), || {
        let then = match payload {
            Payload::Register(_) => {
                "it is registered with the next slot block and votes once it has been present; time-cli masternode status"
            }
            Payload::Update(_) => "in force with the next slot block",
            Payload::Unregister(_) => "it leaves with the next slot block that can let it go; the collateral follows after the unbonding",
        };
        pairs(&[
            ("masternode", show(&id)),
            ("transaction", show(txid)),
            ("next", then.to_owned()),
        ])
    });
    Ok(())
}

/// Writes a document where it is wanted.
fn write(draft: &Draft, to: Option<&str>, output: &mut Output<'_>) -> Result<(), CliError> {
    let document = draft.to_json()?;
    match to {
        None | Some("-") => output.value(&document),
        Some(file) => {
            let text = serde_json::to_string_pretty(&document);
            let text = text.unwrap_or_else(|_| document.to_string());
            std::fs::write(file, text + "\n").map_err(|error| {
                CliError::new(Exit::Io, format!("cannot write {file}: {error}"))
            })?;
        }
    }
    for place in draft.missing()? {
        let address = Program::Key(place.key).address(draft.network);
        eprintln!(
            "time-cli: still to sign: {} {} ({address})",
            place.role.name(),
            place.key
        );
    }
    Ok(())
}

fn document(file: &str) -> Result<Draft, CliError> {
    let text = read(Path::new(file), DOCUMENT_BYTES_MAX)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| CliError::new(Exit::Data, format!("{file} is no JSON: {error}")))?;
    Draft::from_json(&value).map_err(|error| CliError::new(Exit::Data, format!("{file}: {error}")))
}

fn submit_file(file: &str, client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let draft = document(file)?;
    let sent = submit(&draft, client)??;
    tell(&draft, &sent, output)
}

/// The masternode that is meant: by name, or the one run here.
fn masternode_id(id: &Option<String>, client: &mut Client) -> Result<Value, CliError> {
    if let Some(id) = id {
        return Ok(json!(id));
    }
    let here = client.call("masternode status", json!([]))?;
    match &here["proTxHash"] {
        Value::Null => Err(usage(
            "name the masternode's id: the operator key of this node is not registered",
        )),
        id => Ok(id.clone()),
    }
}

fn update(given: &TimeCli, options: &Update, output: &mut Output<'_>) -> Result<(), CliError> {
    let mut client = connect::client(given)?;
    let id = masternode_id(&options.id, &mut client)?;
    let fee_from = options.fee_from.clone().unwrap_or_default();
    let key = match &options.operator_key {
        Some(_) => operator_key(given, options.operator_key.as_ref())?,
        None => None,
    };
    let operator = options.operator.clone();
    let operator = operator.or_else(|| key.as_ref().map(|key| key.public().to_string()));
    let registrar = operator.is_some() || options.payout.is_some();
    let (method, words) = match (&options.endpoint, registrar) {
        (Some(endpoint), false) => {
            let words = json!([id, endpoint, "", "", fee_from, false]);
            ("protx update_service", words)
        }
        (None, true) => {
            let payout = options.payout.clone().unwrap_or_default();
            let operator = operator.unwrap_or_default();
            let words = json!([id, operator, "", payout, fee_from, false]);
            ("protx update_registrar", words)
        }
        (Some(_), true) => {
            return Err(usage(
                "change the endpoint by an update of its own: it is another transaction",
            ));
        }
        (None, false) => {
            return Err(usage(
                "give --endpoint, or --payout, --operator and --operator-key",
            ));
        }
    };
    let make = |client: &mut Client| signed(&client.call(method, words.clone())?, key.as_ref());
    send_or_write(make, options.out.as_deref(), &mut client, output)
}

fn unregister(
    given: &TimeCli,
    options: &Unregister,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let mut client = connect::client(given)?;
    let id = masternode_id(&options.id, &mut client)?;
    let fee_from = options.fee_from.clone().unwrap_or_default();
    let words = json!([id, "", 0, fee_from, false]);
    let make = |client: &mut Client| signed(&client.call("protx revoke", words.clone())?, None);
    send_or_write(make, options.out.as_deref(), &mut client, output)
}

fn send_or_write(
    make: impl Fn(&mut Client) -> Result<Draft, CliError>,
    out: Option<&str>,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    match out {
        Some(_) => write(&make(client)?, out, output),
        None => make_and_submit(client, output, make),
    }
}

/// What somebody is about to sign, in words.
fn summary(draft: &Draft) -> Result<String, CliError> {
    let document = draft.to_json()?;
    let line = |value: &Value| show(value);
    let mut lines = vec![
        ("signing", line(&document["kind"])),
        ("network", line(&document["network"])),
        ("fee", format!("{} TIME", line(&document["fee"]))),
    ];
    if !document["collateralAmount"].is_null() {
        lines.push((
            "collateral",
            format!(
                "{} TIME, returns to {}",
                line(&document["collateralAmount"]),
                line(&document["collateralAddress"])
            ),
        ));
    }
    let payload = document["payload"].as_object().into_iter().flatten();
    let named = payload.filter(|(_, value)| !value.is_null());
    lines.extend(named.map(|(name, value)| (name.as_str(), show(value))));
    Ok(pairs(&lines))
}

fn sign(given: &TimeCli, options: &Sign, output: &mut Output<'_>) -> Result<(), CliError> {
    let mut draft = document(&options.file)?;
    eprint!("{}", summary(&draft)?);
    if options.wallet {
        let asked = json!([draft.to_json()?]);
        let signed = connect::client(given)?.call("protx sign", asked)?;
        return write(&Draft::from_json(&signed)?, options.out.as_deref(), output);
    }
    let mut files: Vec<PathBuf> = options.key.iter().map(PathBuf::from).collect();
    if files.is_empty() {
        files.extend(default_key(given));
    }
    if files.is_empty() {
        return Err(usage("give --key FILE, or --wallet"));
    }
    for file in files {
        let key = load_key(&file)?;
        if draft.sign(&key)? == 0 {
            let places = draft.places()?;
            let known = places.iter().any(|place| place.key == key.public());
            let what = if known {
                "has signed already"
            } else {
                "does not have to sign this"
            };
            let text = format!("the key of {} {what}", file.display());
            return Err(CliError::new(Exit::Failure, text));
        }
    }
    write(&draft, options.out.as_deref(), output)
}

fn keygen(given: &TimeCli, options: &Keygen, output: &mut Output<'_>) -> Result<(), CliError> {
    let network = connect::config(given)?.node.network;
    let seed = keys::generate(Path::new(&options.out), KeyKind::Cold)?;
    let public = SecretKey::from_seed(&seed).public();
    let address = Program::Key(public).address(network);
    let found = json!({"address": address, "pubkey": public.to_string(), "file": options.out});
    output.either(&found, || rows(&found));
    Ok(())
}
