//! The program `timed` as a person meets it before any node runs: help, configuration, exit codes.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory of its own for one test, gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("timed-{name}-{}", std::process::id()));
        // Left behind by a process of the same number that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Directory(path)
    }

    /// Writes `text` as a configuration file and answers its path.
    fn config(&self, text: &str) -> String {
        let path = self.0.join("timed.toml");
        std::fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn timed(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("TIMED_LOG__LEVEL");
    command.output().expect("timed starts")
}

fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .expect("ended by itself, not by a signal")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_are_data_on_stdout() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["devnet", "--help"],
        &["--version"],
    ] {
        let output = timed(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn usage_errors_end_with_64_and_say_where_help_is() {
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["devnet", "--nodes", "0"],
        &["signer"],
    ] {
        let output = timed(arguments);
        assert_eq!(code(&output), 64, "{arguments:?}");
        assert!(output.stdout.is_empty(), "messages go to stderr");
        assert!(
            text(&output.stderr).contains("--help"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn configuration_errors_end_with_78_and_name_file_line_and_key() {
    let directory = Directory::new("config");
    let path = directory.config("[node]\nnetwork = \"dev\"\n[p2p]\nmax_inbond = 3\n");
    let output = timed(&["--config", &path, "--check-config"]);
    assert_eq!(code(&output), 78);
    let message = text(&output.stderr);
    assert!(
        message.contains("timed.toml:4: ") && message.contains("did you mean \"p2p.max_inbound\"?"),
        "{message}"
    );
    let output = timed(&["--config", "/nonexistent/timed.toml", "--check-config"]);
    assert_eq!(code(&output), 78, "a file that is named must be there");
}

#[test]
fn printed_configuration_is_a_configuration() {
    let directory = Directory::new("print");
    let path =
        directory.config("[node]\nnetwork = \"dev\"\ndatadir = \".\"\n[threads]\nnet = \"0\"\n");
    let printed = timed(&["--config", &path, "--print-config", "--log=warn"]);
    assert_eq!(code(&printed), 0);
    let second = directory.config(&text(&printed.stdout));
    let output = timed(&["--config", &second, "--check-config"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(
        text(&printed.stdout).contains("level = \"warn\" # option --log"),
        "each value tells its source"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    command
        .arg("--help")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("timed starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(
        !text(&output.stderr).contains("panicked"),
        "{}",
        text(&output.stderr)
    );
}
