//! A registry transaction on its way to be signed by people on several hosts: the transaction, what its inputs spend, and
//! whose signatures it needs. As a JSON document it is all that a host without a node needs to see what it signs (L5: the
//! spent values are signed, so the fee shown is the true one).
//!
//! Inputs: a transaction and its spent outputs, keys, signatures. Outputs: the same with more signatures; what is missing.
//! Never: believes a hash or a figure of a document; all of them are computed again.

use crate::base::hex;
use crate::base::limits::{TX_BYTES_MAX, TX_PAYLOAD_BYTES_MAX};
use crate::crypto::hash::Hash;
use crate::crypto::keys::{PublicKey, SecretKey, Signature};
use crate::crypto::verify::Check;
use crate::rpc::args::amount_json;
use crate::rpc::json;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::*;
use crate::wallet::sign::UNSIGNED;
use serde_json::{Value, json};

/// Longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 * TX_BYTES_MAX;
/// Choices of coins for one transaction: another payment may take a coin between its choice and the sending.
pub const CHOICE_COUNT_MAX: usize = 5;

/// Why a document or transaction cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// Not a document of this kind.
    #[error("this is no prepared registry transaction: {0}")]
    Format(String),
    /// Not Register, Update or Unregister.
    #[error("a {0} needs no masternode's signatures: send it with sendrawtransaction")]
    Kind(&'static str),
    /// An input that a policy locks.
    #[error(
        "input {0} is locked by a policy of several keys: such coins cannot pay for registry transactions here; pay them to an address of one key first"
    )]
    Policy(usize),
    /// A signature that nobody here can have made.
    #[error(
        "signature {0} is by none of the keys that must sign, or for another transaction: sign the message shown"
    )]
    Foreign(usize),
}

/// For what a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The coin of this input: of a registration, input 0 is usually the collateral.
    Input(usize),
    /// The masternode's owner.
    Owner,
    /// The operator, to show possession of the key (M1).
    Operator,
}

impl Role {
    /// The word in a document.
    pub fn name(self) -> &'static str {
        match self {
            Role::Input(_) => "input",
            Role::Owner => "owner",
            Role::Operator => "operator",
        }
    }
}

/// A place for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// For what.
    pub role: Role,
    /// By which key.
    pub key: PublicKey,
    /// What the key signs.
    pub message: Hash,
    /// The signature found there, if it holds.
    pub signature: Option<Signature>,
}

/// A registry transaction being signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Network signed for.
    pub chain: ChainId,
    /// Rule set signed for.
    pub branch: Branch,
    /// For addresses.
    pub network: Network,
    /// With the signatures so far.
    pub transaction: Transaction,
    /// What its inputs spend, in order.
    pub spent: Vec<TxOutput>,
    /// Who signs as owner: of an Update or Unregister.
    pub owner: Option<PublicKey>,
}

/// The payload of a registry transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Of a registration.
    Register(Register),
    /// Of a change.
    Update(Update),
    /// Of a wish to leave.
    Unregister(Unregister),
}

/// The payload of a transaction; `None` if it has none of this kind or it does not decode.
pub fn payload_of(body: &TxBody) -> Option<Payload> {
    let bytes = &body.payload;
    match body.kind {
        TxKind::Register => Some(Payload::Register(
            codec::decode(bytes, TX_PAYLOAD_BYTES_MAX).ok()?,
        )),
        TxKind::Update => Some(Payload::Update(
            codec::decode(bytes, TX_PAYLOAD_BYTES_MAX).ok()?,
        )),
        TxKind::Unregister => Some(Payload::Unregister(
            codec::decode(bytes, TX_PAYLOAD_BYTES_MAX).ok()?,
        )),
        TxKind::Transfer | TxKind::Coinbase => None,
    }
}

impl Payload {
    /// Which masternode an Update or Unregister is about.
    pub fn masternode(&self) -> Option<MasternodeId> {
        match self {
            Payload::Register(_) => None,
            Payload::Update(update) => Some(update.id),
            Payload::Unregister(unregister) => Some(unregister.id),
        }
    }
    /// The operator key that must show possession.
    fn operator(&self) -> Option<PublicKey> {
        match self {
            Payload::Register(register) => Some(register.operator),
            Payload::Update(update) => update.operator,
            Payload::Unregister(_) => None,
        }
    }
    /// As people see it.
    pub fn to_json(&self, network: Network) -> Value {
        let address = |program: &Program| program.address(network);
        let text = |endpoint: &Endpoint| String::from_utf8_lossy(endpoint).into_owned();
        match self {
            Payload::Register(r) => json!({
                "service": text(&r.endpoint),
                "ownerAddress": address(&Program::Key(r.owner)),
                "pubKeyOwner": r.owner.to_string(),
                "pubKeyOperator": r.operator.to_string(),
                "payoutAddress": address(&r.payout),
            }),
            Payload::Update(u) => json!({
                "proTxHash": u.id.to_string(),
                "service": u.endpoint.as_ref().map(text),
                "pubKeyOperator": u.operator.map(|key| key.to_string()),
                "payoutAddress": u.payout.as_ref().map(address),
            }),
            Payload::Unregister(u) => json!({"proTxHash": u.id.to_string()}),
        }
    }
}

impl Draft {
    /// A draft that can be signed: a registry kind, every input locked by a key, the owner known where one signs.
    pub fn check(self) -> Result<Draft, DraftError> {
        let payload = self.payload()?;
        if self.spent.len() != self.transaction.body.inputs.len() || self.spent.is_empty() {
            return Err(DraftError::Format(
                "it must name what each input spends".into(),
            ));
        }
        let policy = |o: &TxOutput| matches!(o.program, Program::Policy(_));
        if let Some(index) = self.spent.iter().position(policy) {
            return Err(DraftError::Policy(index));
        }
        if payload.masternode().is_some() && self.owner.is_none() {
            return Err(DraftError::Format("it must name the owner's key".into()));
        }
        Ok(self.with_places(&payload))
    }

    /// One place for each signature; what does not fit there is dropped.
    fn with_places(mut self, payload: &Payload) -> Draft {
        let tx = &mut self.transaction;
        let mut witnesses = std::mem::take(&mut tx.witnesses).into_vec();
        witnesses.resize(self.spent.len(), Witness::Key(UNSIGNED));
        for witness in witnesses.iter_mut() {
            if !matches!(witness, Witness::Key(_)) {
                *witness = Witness::Key(UNSIGNED);
            }
        }
        tx.witnesses = crate::base::bounded::BoundedVec::take_from(witnesses);
        let mut auth = std::mem::take(&mut tx.auth).into_vec();
        let needed =
            usize::from(payload.masternode().is_some()) + usize::from(payload.operator().is_some());
        auth.resize(needed, UNSIGNED);
        tx.auth = crate::base::bounded::BoundedVec::take_from(auth);
        self
    }

    /// The payload.
    pub fn payload(&self) -> Result<Payload, DraftError> {
        let body = &self.transaction.body;
        if !body.kind.is_registry() {
            return Err(DraftError::Kind(json::kind_name(body.kind)));
        }
        payload_of(body).ok_or_else(|| DraftError::Format("its payload does not decode".into()))
    }

    /// What coins and owner sign.
    pub fn message(&self) -> Hash {
        let body = &self.transaction.body;
        body.signature_hash(self.chain, self.branch, &self.spent)
    }

    /// What it pays to the network; `None` if it spends more than there is.
    pub fn fee(&self) -> Option<Amount> {
        let out = self.transaction.body.outputs.iter().map(|o| o.value);
        Amount::sum(self.spent.iter().map(|o| o.value))?.minus(Amount::sum(out)?)
    }

    /// Every signature it needs, in the order of the transaction.
    pub fn places(&self) -> Result<Vec<Place>, DraftError> {
        let payload = self.payload()?;
        let message = self.message();
        let possession = possession_hash(&message);
        let place = |role, key, message, signature: Option<Signature>| Place {
            role,
            key,
            message,
            signature: signature.filter(|signature| {
                *signature != UNSIGNED
                    && Check {
                        key,
                        message,
                        signature: *signature,
                    }
                    .verify()
            }),
        };
        let mut out = Vec::new();
        for (i, output) in self.spent.iter().enumerate() {
            let Program::Key(key) = output.program else {
                return Err(DraftError::Policy(i));
            };
            let held = match self.transaction.witnesses.get(i) {
                Some(Witness::Key(signature)) => Some(*signature),
                _ => None,
            };
            out.push(place(Role::Input(i), key, message, held));
        }
        let mut auth = self.transaction.auth.iter().copied();
        if payload.masternode().is_some() {
            let owner = self
                .owner
                .ok_or_else(|| DraftError::Format("it must name the owner's key".into()))?;
            out.push(place(Role::Owner, owner, message, auth.next()));
        }
        if let Some(operator) = payload.operator() {
            out.push(place(Role::Operator, operator, possession, auth.next()));
        }
        Ok(out)
    }

    /// Signatures that are missing.
    pub fn missing(&self) -> Result<Vec<Place>, DraftError> {
        let mut places = self.places()?;
        places.retain(|place| place.signature.is_none());
        Ok(places)
    }

    fn put(&mut self, at: usize, signature: Signature) {
        let inputs = self.spent.len();
        match at.checked_sub(inputs) {
            None => {
                let witnesses = self.transaction.witnesses.as_mut_slice();
                if let Some(witness) = witnesses.get_mut(at) {
                    *witness = Witness::Key(signature);
                }
            }
            Some(at) => {
                if let Some(place) = self.transaction.auth.as_mut_slice().get_mut(at) {
                    *place = signature;
                }
            }
        }
    }

    /// Puts in what `sign` makes for the keys it has; how many places that were.
    pub fn sign_with(
        &mut self,
        mut sign: impl FnMut(&Place) -> Option<Signature>,
    ) -> Result<usize, DraftError> {
        let mut made = 0;
        for (at, place) in self.places()?.iter().enumerate() {
            if place.signature.is_none()
                && let Some(signature) = sign(place)
            {
                self.put(at, signature);
                made += 1;
            }
        }
        Ok(made)
    }

    /// Signs every place of a key; how many they are.
    pub fn sign(&mut self, key: &SecretKey) -> Result<usize, DraftError> {
        let public = key.public();
        self.sign_with(|place| (place.key == public).then(|| key.sign(&place.message)))
    }

    /// Puts signatures made elsewhere where they hold.
    pub fn add(&mut self, signatures: &[Signature]) -> Result<(), DraftError> {
        for (index, signature) in signatures.iter().enumerate() {
            let fits = |place: &Place| {
                Check {
                    key: place.key,
                    message: place.message,
                    signature: *signature,
                }
                .verify()
            };
            let places = self.places()?;
            let mut found = false;
            for (at, place) in places.iter().enumerate() {
                if fits(place) {
                    self.put(at, *signature);
                    found = true;
                }
            }
            if !found {
                return Err(DraftError::Foreign(index));
            }
        }
        Ok(())
    }

    fn place_json(&self, place: &Place) -> Value {
        let mut out = json!({
            "role": place.role.name(),
            "key": place.key.to_string(),
            "message": place.message.to_string(),
        });
        if let Role::Input(i) = place.role {
            out["input"] = json!(i);
        }
        if place.role != Role::Operator {
            out["address"] = json!(Program::Key(place.key).address(self.network));
        }
        out
    }

    /// The document. What is beside `tx`, `chain`, `branch`, `network`, `inputs` and `owner` is for people.
    pub fn to_json(&self) -> Result<Value, DraftError> {
        let payload = self.payload()?;
        let body = &self.transaction.body;
        let message = self.message();
        let input = |(o, output): (&OutPoint, &TxOutput)| {
            json!({
                "txid": o.txid.to_string(),
                "vout": o.vout,
                "amount": amount_json(output.value),
                "address": output.program.address(self.network),
            })
        };
        let inputs = body.inputs.iter().zip(&self.spent).map(input);
        let missing = self.missing()?;
        let mut out = json!({
            "tx": hex::encode(&codec::encode(&self.transaction)),
            "txid": body.txid().to_string(),
            "kind": json::kind_name(body.kind),
            "network": self.network.name(),
            "chain": self.chain.to_string(),
            "branch": self.branch.0,
            "inputs": inputs.collect::<Vec<_>>(),
            "fee": self.fee().map(amount_json),
            "owner": self.owner.map(|key| key.to_string()),
            "payload": payload.to_json(self.network),
            "signMessage": message.to_string(),
            "missing": missing.iter().map(|p| self.place_json(p)).collect::<Vec<_>>(),
            "complete": missing.is_empty(),
        });
        if payload.operator().is_some() {
            out["possessionMessage"] = json!(possession_hash(&message).to_string());
        }
        if let (Payload::Register(_), Some(locked)) = (&payload, body.outputs.first()) {
            out["collateralAddress"] = json!(locked.program.address(self.network));
            out["collateralAmount"] = amount_json(locked.value);
        }
        Ok(out)
    }

    /// A draft from its document.
    pub fn from_json(document: &Value) -> Result<Draft, DraftError> {
        let fault = |what: &str| DraftError::Format(format!("'{what}' is missing or wrong"));
        let text = |name: &str| document[name].as_str().ok_or_else(|| fault(name));
        let tx = hex::decode(text("tx")?).map_err(|_| fault("tx"))?;
        let transaction: Transaction = codec::decode(&tx, TX_BYTES_MAX).map_err(|_| fault("tx"))?;
        let network: Network = text("network")?.parse().map_err(|_| fault("network"))?;
        let branch = document["branch"].as_u64();
        let branch = branch.and_then(|b| b.try_into().ok());
        let inputs = document["inputs"].as_array();
        let inputs = inputs.ok_or_else(|| fault("inputs"))?;
        let mut spent = Vec::with_capacity(inputs.len().min(transaction.body.inputs.len()));
        for (input, outpoint) in inputs.iter().zip(transaction.body.inputs.iter()) {
            let names = input["txid"].as_str() == Some(&outpoint.txid.to_string())
                && input["vout"].as_u64() == Some(u64::from(outpoint.vout));
            let address = input["address"].as_str().filter(|_| names);
            let program = address.and_then(|a| Program::from_address(a, network).ok());
            let value = crate::rpc::args::amount(&input["amount"]);
            spent.push(TxOutput {
                value: value.map_err(|_| fault("inputs"))?,
                program: program.ok_or_else(|| fault("inputs"))?,
            });
        }
        let owner = match &document["owner"] {
            Value::Null => None,
            owner => {
                let key = owner.as_str().and_then(|text| text.parse().ok());
                Some(key.ok_or_else(|| fault("owner"))?)
            }
        };
        Draft {
            chain: text("chain")?.parse().map_err(|_| fault("chain"))?,
            branch: Branch(branch.ok_or_else(|| fault("branch"))?),
            network,
            transaction,
            spent,
            owner,
        }
        .check()
    }
}
