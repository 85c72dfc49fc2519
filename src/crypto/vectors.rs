//! Published vectors: what the one verdict says of them, single and in batches (L6), and that the hash is BLAKE3.

use super::hash::{Domain, Hash, hash};
use super::keys::{PublicKey, Signature};
use super::verify::{Check, items_hold, verify_all, verify_each};
use crate::base::hex;
use ed25519_zebra::batch::Item;
use serde_json::Value;

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// A signature of any length over any bytes; `None` if it has another length than 64 bytes.
fn item(key: &[u8], message: &[u8], signature: &[u8]) -> Option<Item> {
    let key: [u8; 32] = key.try_into().ok()?;
    let signature: [u8; 64] = signature.try_into().ok()?;
    let key = ed25519_zebra::VerificationKeyBytes::from(key);
    Some(Item::from((
        key,
        ed25519_zebra::Signature::from(signature),
        message,
    )))
}

#[test]
fn wycheproof_is_judged_as_zip_215_says() {
    let file = read(include_str!("../../tests/vectors/ed25519_wycheproof.json"));
    let (mut count, mut accepted) = (0, Vec::new());
    for group in file["testGroups"].as_array().unwrap() {
        let key = bytes(&group["publicKey"]["pk"]);
        for test in group["tests"].as_array().unwrap() {
            let id = test["tcId"].as_u64().unwrap();
            let expect = test["result"] == "valid" || id == 151;
            let item = item(&key, &bytes(&test["msg"]), &bytes(&test["sig"]));
            let single = item
                .clone()
                .is_some_and(|item| item.verify_single().is_ok());
            assert_eq!(single, expect, "L6: tcId {id}: {}", test["comment"]);
            let batch = item
                .clone()
                .is_some_and(|item| items_hold(vec![item; 5], Hash::ZERO));
            assert_eq!(batch, expect, "L6: batch and single agree, tcId {id}");
            accepted.extend(item.filter(|_| expect));
            count += 1;
        }
    }
    assert_eq!(count, file["numberOfTests"].as_u64().unwrap());
    assert!(
        items_hold(accepted, Hash::ZERO),
        "L6: all that hold alone hold together"
    );
}

fn speccheck() -> Vec<Check> {
    let file = read(include_str!("../../tests/vectors/ed25519_speccheck.json"));
    let check = |case: &Value| Check {
        key: PublicKey(bytes(&case["pub_key"]).try_into().unwrap()),
        message: Hash(bytes(&case["message"]).try_into().unwrap()),
        signature: Signature(bytes(&case["signature"]).try_into().unwrap()),
    };
    file.as_array().unwrap().iter().map(check).collect()
}

#[test]
fn speccheck_is_judged_as_zip_215_says_alone_and_among_others() {
    let checks = speccheck();
    let expect: Vec<bool> = (0..12).map(|i| !(6..=8).contains(&i)).collect();
    let single: Vec<bool> = checks.iter().map(Check::verify).collect();
    assert_eq!(single, expect, "L6");
    assert_eq!(
        verify_each(&checks),
        expect,
        "L6: a verdict does not depend on batch mates"
    );
    for (check, expect) in checks.iter().zip(expect) {
        assert_eq!(verify_all(&vec![check.clone(); 6]), expect);
    }
}

/// Encodings of the points of small order, canonical and not. With s = 0 every pair of them as R and A satisfies the
/// cofactored equation, whatever the message.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

#[test]
fn torsion_is_accepted_alone_and_in_batches_and_never_registered() {
    let points = SMALL_ORDER.map(|text| hex::decode_array::<32>(text).unwrap());
    let mut checks = Vec::new();
    for key in points {
        assert!(
            !PublicKey(key).is_canonical_prime_order(),
            "L6: such keys are not registered"
        );
        for r in points {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&r);
            let message = hash(Domain::Prevote, &[&key, &r]);
            checks.push(Check {
                key: PublicKey(key),
                message,
                signature: Signature(signature),
            });
        }
    }
    assert!(
        checks.iter().all(Check::verify),
        "L6: the cofactored equation"
    );
    assert!(verify_all(&checks), "L6: batch and single agree");
    checks[7].signature.0[32] = 1;
    assert!(!checks[7].verify() && !verify_all(&checks));
    assert_eq!(
        verify_each(&checks).iter().filter(|good| !**good).count(),
        1
    );
}

#[test]
fn the_hash_is_blake3() {
    let file = read(include_str!("../../tests/vectors/blake3.json"));
    let context = file["context_string"].as_str().unwrap();
    for case in file["cases"].as_array().unwrap() {
        let length = case["input_len"].as_u64().unwrap() as usize;
        let input: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let expect = bytes(&case["derive_key"]);
        let mut hasher = blake3::Hasher::new_derive_key(context);
        let mut out = vec![0; expect.len()];
        hasher.update(&input).finalize_xof().fill(&mut out);
        assert_eq!(
            out, expect,
            "derive-key mode, the one L1 uses, {length} bytes"
        );
        assert_eq!(
            blake3::hash(&input).as_bytes()[..],
            bytes(&case["hash"])[..32]
        );
    }
}
