//! One verdict on a signature, single or in a batch: ZIP 215 (cofactored equation, canonical s, any encoding of R and A
//! that decodes). A failed batch is split until the bad signatures are found, so a verdict never depends on batch mates.
//!
//! [`Verified`] is the proof that every check of a value has passed; nothing outside this module can make one.

use super::hash::{Domain, Hash, Hasher};
use super::keys::{PublicKey, SecretKey, Signature};
use ed25519_zebra::batch::{Item, Verifier};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::Deref;

/// One signature to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Who should have signed.
    pub key: PublicKey,
    /// What: a hash in a signing domain.
    pub message: Hash,
    /// The signature.
    pub signature: Signature,
}

impl Check {
    fn item(&self) -> Item {
        let key = ed25519_zebra::VerificationKeyBytes::from(self.key.0);
        Item::from((
            key,
            ed25519_zebra::Signature::from(self.signature.0),
            &self.message.0,
        ))
    }

    /// The verdict on this one signature.
    pub fn verify(&self) -> bool {
        self.item().verify_single().is_ok()
    }
}

/// Batch coefficients, derived from everything that is checked (Fiat-Shamir), so that verification needs no entropy.
struct Coefficients(blake3::OutputReader);

impl rand_core::TryRng for Coefficients {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Coefficients {}

fn batch_holds(checks: &[Check]) -> bool {
    let mut seed = Hasher::new(Domain::BatchSeed);
    for check in checks {
        seed.update(&check.key.0)
            .update(&check.message.0)
            .update(&check.signature.0);
    }
    items_hold(checks.iter().map(Check::item).collect(), seed.finish())
}

/// Whether all items hold, checked together with coefficients that `seed` (a hash of all of them) fixes.
pub(super) fn items_hold(items: Vec<Item>, seed: Hash) -> bool {
    let mut verifier = Verifier::new();
    for item in items {
        verifier.queue(item);
    }
    let mut xof = blake3::Hasher::new();
    xof.update(&seed.0);
    verifier.verify(Coefficients(xof.finalize_xof())).is_ok()
}

/// Below this a batch saves nothing.
const BATCH_MIN: usize = 4;
/// Beyond this a batch gains nothing from being larger, and halves of it are checked side by side.
const BATCH_MAX: usize = 512;

fn split(checks: &[Check], out: &mut [bool]) {
    if checks.len() > BATCH_MAX {
        let middle = checks.len() / 2;
        let (left, right) = out.split_at_mut(middle);
        rayon::join(
            || split(&checks[..middle], left),
            || split(&checks[middle..], right),
        );
    } else if checks.len() < BATCH_MIN {
        for (check, verdict) in checks.iter().zip(out) {
            *verdict = check.verify();
        }
    } else if batch_holds(checks) {
        out.fill(true);
    } else {
        let middle = checks.len() / 2;
        let (left, right) = out.split_at_mut(middle);
        split(&checks[..middle], left);
        split(&checks[middle..], right);
    }
}

/// The verdict on each of `checks`, equal to [`Check::verify`] on each.
pub fn verify_each(checks: &[Check]) -> Vec<bool> {
    let mut out = vec![false; checks.len()];
    split(checks, &mut out);
    out
}

/// Whether all of `checks` hold.
pub fn verify_all(checks: &[Check]) -> bool {
    if checks.len() < BATCH_MIN {
        checks.iter().all(Check::verify)
    } else if checks.len() > BATCH_MAX {
        verify_each(checks).into_iter().all(|good| good)
    } else {
        // A batch that fails may only do so because it holds a bad signature, but a verdict is never left to a batch.
        batch_holds(checks) || checks.iter().all(Check::verify)
    }
}

/// Good signatures of one generation of a [`Memo`].
const MEMO_COUNT: usize = 100_000;

/// Remembers signatures that hold, for a process that plays many nodes: each node asks for itself, the work is done once. A
/// verdict is a function of the check alone, so it is the same; a bad signature is checked every time.
#[derive(Debug, Default)]
pub struct Memo {
    good: BTreeSet<Known>,
    older: BTreeSet<Known>,
}

/// All of a [`Check`], the part that differs most first.
type Known = (Signature, Hash, PublicKey);

impl Memo {
    /// Whether all of `checks` hold, as [`verify_all`] says.
    pub fn verify_all(&mut self, checks: &[Check]) -> bool {
        let all_of = |check: &Check| (check.signature, check.message, check.key);
        let is_new = |check: &&Check| {
            let known = all_of(check);
            !self.good.contains(&known) && !self.older.contains(&known)
        };
        let new: Vec<Check> = checks.iter().filter(is_new).cloned().collect();
        let mut all = true;
        for (check, good) in new.iter().zip(verify_each(&new)) {
            all &= good;
            if good {
                self.good.insert(all_of(check));
            }
        }
        if self.good.len() >= MEMO_COUNT {
            self.older = std::mem::take(&mut self.good);
        }
        all
    }
}

/// A value whose signatures have been checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Checks `checks`, which the caller derived from `value`; gives the value back if one fails.
    pub fn check(value: T, checks: &[Check]) -> Result<Verified<T>, T> {
        if verify_all(checks) {
            Ok(Verified(value))
        } else {
            Err(value)
        }
    }

    /// As [`Verified::check`] for each of many values, with a memory.
    pub fn check_known(
        memo: &mut Memo,
        items: Vec<(T, Vec<Check>)>,
    ) -> Vec<Result<Verified<T>, T>> {
        let judge = |(value, checks): (T, Vec<Check>)| match memo.verify_all(&checks) {
            true => Ok(Verified(value)),
            false => Err(value),
        };
        items.into_iter().map(judge).collect()
    }

    /// Checks many values in one batch.
    pub fn check_many(items: Vec<(T, Vec<Check>)>) -> Vec<Result<Verified<T>, T>> {
        let flat: Vec<Check> = items
            .iter()
            .flat_map(|(_, checks)| checks.iter().cloned())
            .collect();
        let mut verdicts = verify_each(&flat).into_iter();
        items
            .into_iter()
            .map(|(value, checks)| {
                // Every verdict of this value is taken, also after a bad one, so that the next value finds its own.
                let good = verdicts
                    .by_ref()
                    .take(checks.len())
                    .filter(|ok| *ok)
                    .count();
                if good == checks.len() {
                    Ok(Verified(value))
                } else {
                    Err(value)
                }
            })
            .collect()
    }

    /// Signs `message` and builds the signed value from the signature: our own signature needs no check.
    pub fn sign(
        secret: &SecretKey,
        message: &Hash,
        build: impl FnOnce(Signature) -> T,
    ) -> Verified<T> {
        Verified(build(secret.sign(message)))
    }

    /// The value, and with it the proof, given up.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// Keeps the proof while the value changes its wrapping (an enum variant, an `Arc`).
    pub fn map<U>(self, wrap: impl FnOnce(T) -> U) -> Verified<U> {
        Verified(wrap(self.0))
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::hash;

    fn good(i: u8) -> Check {
        let secret = SecretKey::from_seed(&[i; 32]);
        let message = hash(Domain::Prevote, &[&[i]]);
        Check {
            key: secret.public(),
            message,
            signature: secret.sign(&message),
        }
    }

    #[test]
    fn a_bad_signature_never_drags_its_batch_mates_down() {
        let mut checks: Vec<Check> = (0..37).map(good).collect();
        checks[5].message = Hash::ZERO;
        checks[36].signature.0[63] ^= 0x80;
        let verdicts = verify_each(&checks);
        for (i, verdict) in verdicts.iter().enumerate() {
            assert_eq!(*verdict, i != 5 && i != 36, "L6: check {i}");
        }
        assert!(!verify_all(&checks));
        let mut many: Vec<Check> = (0..=BATCH_MAX).map(|i| good(i as u8)).collect();
        assert!(verify_all(&many), "halves are checked side by side");
        many[BATCH_MAX].message = Hash::ZERO;
        assert!(!verify_all(&many) && verify_each(&many)[..BATCH_MAX].iter().all(|ok| *ok));
        let values = checks
            .iter()
            .enumerate()
            .map(|(i, c)| (i, vec![c.clone(), good(1)]))
            .collect();
        let out = Verified::check_many(values);
        assert_eq!(out.iter().filter(|v| v.is_err()).count(), 2);
        assert_eq!(out[5], Err(5));
    }

    #[test]
    fn a_memory_gives_the_same_verdicts() {
        let mut memo = Memo::default();
        let mut checks: Vec<Check> = (0..9).map(good).collect();
        for _ in 0..2 {
            assert!(memo.verify_all(&checks), "L6: at first and again");
        }
        checks[3].signature.0[1] ^= 1;
        for _ in 0..2 {
            let items = vec![(1, checks.clone()), (2, vec![good(1)]), (3, vec![])];
            let verdicts = Verified::check_known(&mut memo, items);
            let held: Vec<bool> = verdicts.iter().map(Result::is_ok).collect();
            assert_eq!(held, [false, true, true], "L6: a bad one stays bad");
        }
    }

    #[test]
    fn signing_is_verified_by_construction() {
        let secret = SecretKey::from_seed(&[3; 32]);
        let message = hash(Domain::Prevote, &[b"x"]);
        let signed = Verified::sign(&secret, &message, |s| s);
        assert!(
            Check {
                key: secret.public(),
                message,
                signature: *signed
            }
            .verify()
        );
    }
}
