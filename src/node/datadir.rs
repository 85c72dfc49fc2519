//! The data directory: what lies where, and that only one process uses it.
//!
//! Job: name the files, make the directory, lock it, write cookie and pid, ask how much disk is free. Inputs: its path.
//! Outputs: paths and locks; a [`DataDirError`] with the exit code. Never: opens a database or touches `signer/`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};

use super::exit::Exit;
use super::files::{FileError, private_directory, write_private};
use super::keys::{KeyError, random_seed};
use crate::base::hex;

/// User name that goes with the cookie.
pub const COOKIE_USER: &str = "__cookie__";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file or directory could not be made, or is open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// No randomness for the cookie.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another process has it.
    #[error("the data directory {} is in use by {holder}; stop that process, or use another --datadir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// The operator key is in use.
    #[error(
        "the operator key {0} is already in use by a process on this host; stop that one: a key that runs twice is punished"
    )]
    OperatorKeyInUse(String),
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl DataDirError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        match self {
            DataDirError::File(error) => error.exit(),
            DataDirError::Key(error) => error.exit(),
            DataDirError::Locked { .. } | DataDirError::OperatorKeyInUse(_) => Exit::Unavailable,
            DataDirError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            DataDirError::Io { .. } => Exit::Io,
        }
    }
}

/// Room on the disk of a directory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this process may still write.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// A data directory by its path. Making the value touches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataDir(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration file that is read without `--config`.
    pub fn config(&self) -> PathBuf {
        self.0.join("timed.toml")
    }

    /// The genesis file.
    pub fn genesis(&self) -> PathBuf {
        self.0.join("genesis.toml")
    }

    /// The ledger environment.
    pub fn ledger(&self) -> PathBuf {
        self.0.join("lmdb")
    }

    /// The signer environment; never part of a backup.
    pub fn signer(&self) -> PathBuf {
        self.0.join("signer")
    }

    /// Directory of the key files.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The node key.
    pub fn node_key(&self) -> PathBuf {
        self.keys().join("node.key")
    }

    /// The operator key, unless `masternode.operator_key` names another.
    pub fn operator_key(&self) -> PathBuf {
        self.keys().join("operator.key")
    }

    /// Directory of the wallets.
    pub fn wallets(&self) -> PathBuf {
        self.0.join("wallets")
    }

    /// Payments of blocks that were taken back after a fork (B6).
    pub fn taken_back(&self) -> PathBuf {
        self.0.join("taken-back")
    }

    /// What a node without an operator key remembers of forks.
    pub fn forks(&self) -> PathBuf {
        self.0.join("forks")
    }

    /// Waiting transactions over a restart.
    pub fn mempool(&self) -> PathBuf {
        self.0.join("mempool")
    }

    /// Known peers over a restart.
    pub fn peers(&self) -> PathBuf {
        self.0.join("peers")
    }

    /// Snapshots (F4).
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// What this node trusts (F2).
    pub fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }

    /// Bans over a restart.
    pub fn bans(&self) -> PathBuf {
        self.0.join("bans")
    }

    /// The cookie file.
    pub fn cookie(&self) -> PathBuf {
        self.0.join(".cookie")
    }

    /// The file with the number of the process that runs here.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("timed.pid")
    }

    /// Makes the directory with mode 0700, and `keys/` and `wallets/` in it. A directory that others may write, or keys or wallets
    /// that others may look into, are refused with 77.
    pub fn create(&self) -> Result<(), DataDirError> {
        private_directory(&self.0, 0o022)?;
        private_directory(&self.keys(), 0o077)?;
        private_directory(&self.wallets(), 0o077)?;
        Ok(())
    }

    /// Takes the directory for this process until the lock is dropped, and writes `timed.pid`. Taken: exit 69.
    pub fn lock(&self) -> Result<DirLock, DataDirError> {
        let path = self.0.join(".lock");
        let error = |source| DataDirError::Io {
            verb: "lock",
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(&path).map_err(error)?;
        if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(error(errno.into()));
            }
            let mut holder = String::new();
            let _ = (&file).take(20).read_to_string(&mut holder);
            return Err(DataDirError::Locked {
                path: self.0.clone(),
                holder: match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                },
            });
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0).map_err(error)?;
        file.write_all(pid.as_bytes()).map_err(error)?;
        write_private(&self.pid_file(), pid.as_bytes())?;
        Ok(DirLock {
            file,
            pid_file: self.pid_file(),
            cookie: self.cookie(),
        })
    }

    /// Writes a fresh cookie (mode 0600) and answers its password; the user name is [`COOKIE_USER`].
    pub fn write_cookie(&self) -> Result<String, DataDirError> {
        let password = hex::encode(random_seed()?.as_slice());
        write_private(
            &self.cookie(),
            format!("{COOKIE_USER}:{password}").as_bytes(),
        )?;
        Ok(password)
    }

    /// The process that runs here: the one that `timed.pid` names, if the kernel says that it holds the lock. Takes no lock itself, so it
    /// never gets in the way of a node that starts.
    pub fn running_process(&self) -> Option<u32> {
        let inode = std::fs::metadata(self.0.join(".lock")).ok()?.ino();
        let pid = std::fs::read_to_string(self.pid_file()).ok()?;
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let held = locks.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let file = words.get(5).and_then(|file| file.rsplit(':').next());
            words.get(1) == Some(&"FLOCK")
                && words.get(4) == Some(&pid.trim())
                && file == Some(inode.to_string().as_str())
        });
        pid.trim().parse().ok().filter(|_| held)
    }

    /// Room on its disk.
    pub fn disk_space(&self) -> io::Result<DiskSpace> {
        let stat = statvfs(&self.0)?;
        Ok(DiskSpace {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

/// Holds a data directory. Dropped at a clean stop, it removes `timed.pid` and `.cookie`; after a crash the kernel lets go.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    pid_file: PathBuf,
    cookie: PathBuf,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pid_file);
        let _ = std::fs::remove_file(&self.cookie);
        // Closing would do, but for a child process between fork and exec, which holds the same lock for a moment.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Holds an operator key for this host until dropped.
#[derive(Debug)]
pub struct OperatorLock {
    _socket: UnixListener,
}

/// Takes an operator key for this process: an abstract unix socket named by the key's hash, which the kernel frees when the process
/// ends however it ends. `key_hash` is any 32-byte name of the key. Taken: exit 69.
pub fn lock_operator_key(key_hash: &[u8; 32]) -> Result<OperatorLock, DataDirError> {
    let name = hex::encode(key_hash);
    let bound = SocketAddr::from_abstract_name(format!("timecoin-operator-{name}"))
        .and_then(|address| UnixListener::bind_addr(&address));
    match bound {
        Ok(socket) => Ok(OperatorLock { _socket: socket }),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(DataDirError::OperatorKeyInUse(name))
        }
        Err(source) => Err(DataDirError::Io {
            verb: "lock the operator key",
            path: name.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TempDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_one_process_uses_a_directory() {
        let dir = TempDir::new("datadir");
        let data = DataDir::new(dir.path().join("node0"));
        data.create().expect("made");
        assert_eq!(data.running_process(), None);
        let lock = data.lock().expect("free");
        assert_eq!(data.running_process(), Some(std::process::id()));
        let error = data.lock().expect_err("taken");
        assert_eq!(error.exit(), Exit::Unavailable);
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "the message names the process: {error}"
        );
        drop(lock);
        assert!(!data.pid_file().exists(), "a clean stop leaves no pid");
        data.lock().expect("free again");
    }

    #[test]
    fn directories_are_private() {
        let dir = TempDir::new("datadir");
        let data = DataDir::new(dir.path().join("node0"));
        data.create().expect("made");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!((mode(data.path()), mode(&data.keys())), (0o700, 0o700));
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod")
        };
        chmod(data.path(), 0o755);
        data.create()
            .expect("a directory that others can list is fine");
        chmod(&data.keys(), 0o755);
        assert_eq!(
            data.create().expect_err("open keys").exit(),
            Exit::Permission
        );
        chmod(&data.keys(), 0o700);
        chmod(data.path(), 0o777);
        assert_eq!(
            data.create().expect_err("others write").exit(),
            Exit::Permission
        );
    }

    #[test]
    fn the_cookie_is_fresh_private_and_goes_with_the_lock() {
        let dir = TempDir::new("datadir");
        let data = DataDir::new(dir.path());
        let lock = data.lock().expect("free");
        let first = data.write_cookie().expect("written");
        let second = data.write_cookie().expect("written");
        assert_ne!(first, second, "never the same twice");
        let text = std::fs::read_to_string(data.cookie()).expect("there");
        assert_eq!(text, format!("__cookie__:{second}"));
        drop(lock);
        assert!(!data.cookie().exists(), "no cookie without a node");
    }

    #[test]
    fn an_operator_key_runs_once_per_host() {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&std::process::id().to_be_bytes());
        let lock = lock_operator_key(&key).expect("free");
        assert_eq!(
            lock_operator_key(&key).expect_err("taken").exit(),
            Exit::Unavailable
        );
        drop(lock);
        // A child process that another test starts holds the socket, too, until it has become its program.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while lock_operator_key(&key).is_err() {
            assert!(std::time::Instant::now() < until, "free again");
            std::thread::yield_now();
        }
    }

    #[test]
    fn disk_space_is_measured() {
        let dir = TempDir::new("datadir");
        let space = DataDir::new(dir.path()).disk_space().expect("asked");
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
    }
}
