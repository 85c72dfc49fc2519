//! What a node without an operator key remembers of forks: it has no signer store. One small file with the records of kinds
//! fork, deep fork, statement and recovery, replaced as a whole when one comes. Beside it the payments of blocks that were taken back.

use crate::node::datadir::DataDir;
use crate::node::files::{FileError, write_private};
use crate::replica::io::SignerBatch;
use crate::replica::record::is_of_forks;
use crate::types::codec;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Bound of the file: a handful of RecoveryCerts.
const FILE_BYTES_MAX: usize = 64 << 20;

/// The file and what is in it.
pub struct ForkFile {
    path: PathBuf,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl ForkFile {
    /// Reads the file; a missing one is empty, an unreadable one is replaced with the next record.
    pub fn open(datadir: &DataDir) -> ForkFile {
        let path = datadir.forks();
        let records = std::fs::read(&path).ok().and_then(|bytes| {
            let read = codec::decode::<Vec<(Vec<u8>, Vec<u8>)>>(&bytes, FILE_BYTES_MAX);
            read.inspect_err(|e| log::warn!("{}: {e}; going on without it", path.display()))
                .ok()
        });
        let records = records.unwrap_or_default().into_iter().collect();
        ForkFile { path, records }
    }

    /// Its records, for the start of the replica.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.records.iter();
        all.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Keeps what belongs here of a batch; durable when it returns.
    pub fn keep(&mut self, batch: &SignerBatch) -> Result<(), FileError> {
        let mut changed = false;
        for (key, value) in batch.iter().filter(|(key, _)| is_of_forks(key)) {
            let before = match value {
                Some(value) => self.records.insert(key.clone(), value.clone()),
                None => self.records.remove(key),
            };
            changed |= before.as_ref() != value.as_ref();
        }
        match changed {
            true => write_private(&self.path, &codec::encode(&self.records())),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_forks_is_read_back() {
        let dir = std::env::temp_dir().join(format!("timecoin-forkfile-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let datadir = DataDir::new(&dir);
        let mut file = ForkFile::open(&datadir);
        let put = |key: &[u8]| (key.to_vec(), Some(vec![7]));
        let first = [&b"f1"[..], b"w", b"r1", b"a1", b"a2"];
        file.keep(&first.map(put).to_vec()).unwrap();
        file.keep(&vec![(b"a1".to_vec(), None)]).unwrap();
        let kept = || -> Vec<Vec<u8>> {
            let back = ForkFile::open(&datadir).records();
            back.into_iter().map(|(key, _)| key).collect()
        };
        let first = kept();
        file.keep(&vec![put(b"d")]).unwrap();
        let halted = kept();
        file.keep(&vec![(b"d".to_vec(), None), (b"w".to_vec(), None)])
            .unwrap();
        let over = kept();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            first,
            [b"a2", b"f1", b"r1"],
            "forks only: an observer signs nothing; what gave way is gone"
        );
        assert_eq!(
            halted,
            [&b"a2"[..], b"d", b"f1", b"r1"],
            "a halt is durable"
        );
        assert_eq!(over, first, "and ends with its cause");
    }
}
