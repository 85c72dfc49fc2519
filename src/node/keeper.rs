//! Files that carry what is known of peers over a restart: `bans`, and `peers`, the address book.
//!
//! Inputs: what the net thread shows, bytes of an earlier run. Outputs: the files, written when something has changed, by
//! whoever may wait for a disk. Must never stop a node: a file that cannot be read is left aside with a warning.

use crate::base::rng::Rng;
use crate::base::time::WallMs;
use crate::node::datadir::DataDir;
use crate::node::files;
use crate::node::publish::Shared;
use crate::p2p::book::{Book, SAVED_BYTES_MAX};
use crate::p2p::reputation::{BAN_COUNT_MAX, Ban, Subject};
use crate::wallet::seed::random;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First line of the file of bans.
const BANS_HEAD: &str = "# Banned peers: SUBJECT FROM_MS UNTIL_MS hand|fault REASON. Written by timed; use \"time-cli setban\".";
/// Longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 512;

/// Writes the files.
pub struct Keeper {
    bans: PathBuf,
    book: PathBuf,
    shared: Arc<Shared>,
    /// What the file of bans holds, if that is known.
    kept: Option<Arc<Vec<Ban>>>,
}

impl Keeper {
    /// A keeper of the files of a data directory, which hold what `shared` shows now.
    pub fn new(datadir: &DataDir, shared: Arc<Shared>) -> Keeper {
        let kept = Some(shared.bans.read().clone());
        let (bans, book) = (datadir.bans(), datadir.peers());
        Keeper {
            bans,
            book,
            shared,
            kept,
        }
    }

    /// Writes everything once more, whatever has changed: the node stops.
    pub fn keep_all(&mut self) {
        self.kept = None;
        self.keep();
    }

    /// Writes what has changed.
    pub fn keep(&mut self) {
        let book = self.shared.book.lock().take();
        if let Some(book) = book
            && let Err(error) = files::write_private(&self.book, &book)
        {
            log::warn!("the address book is not saved: {error}");
        }
        let bans = self.shared.bans.read().clone();
        let none = bans.is_empty() && !self.bans.exists();
        if none || self.kept.as_ref() == Some(&bans) {
            return;
        }
        match files::write_private(&self.bans, encode_bans(&bans).as_bytes()) {
            Ok(()) => self.kept = Some(bans),
            Err(error) => log::warn!("the bans are not saved: {error}"),
        }
    }
}

fn encode_bans(bans: &[Ban]) -> String {
    let mut text = format!("{BANS_HEAD}\n");
    for ban in bans {
        let by = if ban.by_hand { "hand" } else { "fault" };
        text += &match ban.subject {
            // A masternode is banned for a minute: shorter than a restart is worth.
            Subject::Masternode(_) => continue,
            subject => format!(
                "{subject} {} {} {by} {}\n",
                ban.created.0, ban.until.0, ban.why
            ),
        };
    }
    text
}

fn decode_ban(line: &str) -> Option<Ban> {
    let mut words = line.splitn(5, ' ');
    let subject = Subject::parse(words.next()?)?;
    let [created, until] = [words.next()?, words.next()?].map(|word| word.parse().map(WallMs));
    let by_hand = words.next()? == "hand";
    let why = words.next().unwrap_or_default().to_owned();
    Some(Ban {
        subject,
        created: created.ok()?,
        until: until.ok()?,
        why,
        by_hand,
    })
}

/// The address book of an earlier run, with the addresses to dial first, or a new one with a secret of its own.
pub fn load_book(path: &Path) -> (Book, Vec<SocketAddr>) {
    let mut secret = [0; 32];
    if let Err(error) = random(&mut secret) {
        log::warn!("the address book has no secret: {error}");
    }
    let mut word = [0; 8];
    word.copy_from_slice(&secret[..8]);
    let mut rng = Rng::new(u64::from_le_bytes(word));
    let fresh = || (Book::new(secret), Vec::new());
    if !path.exists() {
        return fresh();
    }
    let read = files::read_private(path, SAVED_BYTES_MAX as u64).map_err(|e| e.to_string());
    let read = read.and_then(|bytes| Book::load(&bytes, &mut rng).map_err(|e| e.to_string()));
    read.unwrap_or_else(|error| {
        log::warn!(
            "{}: {error}; starting with an empty address book",
            path.display()
        );
        fresh()
    })
}

/// The bans of an earlier run. Lines that cannot be read are named and left out.
pub fn load_bans(path: &Path) -> Vec<Ban> {
    let bytes = match files::read_private(path, BAN_COUNT_MAX as u64 * LINE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            if path.exists() {
                log::warn!("{error}; starting without bans");
            }
            return Vec::new();
        }
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut bans = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match decode_ban(line) {
            Some(ban) => bans.push(ban),
            None => log::warn!("{}:{}: not a ban: {line}", path.display(), number + 1),
        }
    }
    bans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TempDir;

    #[test]
    fn bans_read_as_they_are_written_and_bad_lines_are_left_out() {
        let ban = |subject: &str, by_hand| Ban {
            subject: Subject::parse(subject).unwrap(),
            created: WallMs(1),
            until: WallMs(u64::MAX),
            why: "a vote with a bad signature".into(),
            by_hand,
        };
        let bans = [ban("10.0.0.0/8", true), ban(&"ab".repeat(32), false)];
        let dir = TempDir::new("bans");
        let path = dir.path().join("bans");
        assert!(load_bans(&path).is_empty(), "no file, no bans");
        let text = encode_bans(&bans) + "nonsense\n1.2.3.4 x y hand\n\n";
        files::write_private(&path, text.as_bytes()).unwrap();
        assert_eq!(load_bans(&path), bans, "P3: persisted");
    }
}
