//! Exit codes: the one registry of what a `timed` or `time-cli` process says by the way it ends.
//!
//! Job: name every exit code once, with the text that the man pages print.
//! Inputs: none. Outputs: [`Exit`] and its documentation.
//! Never: decides whether something failed; it only names the failure. A code not listed here is never used.

/// Why a program ended. The numbers follow `sysexits.h` where it has the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done; also a clean stop by SIGTERM or SIGINT.
    Success = 0,
    /// The answer was an error, or a check failed.
    Failure = 1,
    /// The command line could not be understood.
    Usage = 64,
    /// Data on disk or in a file is corrupt or foreign.
    Data = 65,
    /// Something needed is taken or cannot be reached.
    Unavailable = 69,
    /// A defect of the program itself.
    Internal = 70,
    /// Input or output failed.
    Io = 74,
    /// The node cannot answer yet; try again.
    NotReady = 75,
    /// Refused for lack of rights.
    Permission = 77,
    /// The configuration is wrong or incomplete.
    Config = 78,
    /// What was waited for did not happen in time.
    TimedOut = 124,
}

impl Exit {
    /// Every code, ascending.
    pub const ALL: [Exit; 11] = [
        Exit::Success,
        Exit::Failure,
        Exit::Usage,
        Exit::Data,
        Exit::Unavailable,
        Exit::Internal,
        Exit::Io,
        Exit::NotReady,
        Exit::Permission,
        Exit::Config,
        Exit::TimedOut,
    ];

    /// The number handed to the operating system.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// One sentence for people: what happened and, where it helps, what to do.
    pub fn help(self) -> &'static str {
        match self {
            Exit::Success => "done; also a clean stop by SIGTERM or SIGINT",
            Exit::Failure => "the node answered with an error, or a check failed",
            Exit::Usage => "the command line could not be understood; see --help",
            Exit::Data => {
                "data is corrupt or belongs to another chain; for a ledger, see timed db rebuild"
            }
            Exit::Unavailable => {
                "cannot connect, a port is in use, the data directory is locked, or the operator key is already in use on this host"
            }
            Exit::Internal => "a defect of the program; please report it with the log",
            Exit::Io => "input or output failed, or the disk is full",
            Exit::NotReady => "not ready yet (warming up or syncing); try again",
            Exit::Permission => {
                "a key file or directory has the wrong permissions, or the credentials were refused"
            }
            Exit::Config => "the configuration is wrong or incomplete; the message names the key",
            Exit::TimedOut => "a wait ended before what was waited for",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn exit_codes_are_those_that_scripts_rely_on() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(
            codes,
            [0, 1, 64, 65, 69, 70, 74, 75, 77, 78, 124],
            "scripts and units match on these numbers: rename nothing"
        );
        assert!(
            Exit::ALL.iter().all(|exit| !exit.help().is_empty()),
            "every code explains itself"
        );
    }
}
