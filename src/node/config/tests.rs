//! The configuration as an operator meets it: precedence, strictness, and texts that read back.

use std::path::PathBuf;

use super::{Config, Flags, Inputs, Settings, example, packaged_example, print_config};
use crate::node::testing::TempDir;
use crate::types::address::Network;

/// Loads `text` as DIR/timed.toml, with these variables and flags.
fn load(
    dir: &TempDir,
    text: &str,
    environment: &[(&str, &str)],
    mut flags: Flags,
) -> Result<Settings, String> {
    let path = dir.path().join("timed.toml");
    std::fs::write(&path, text).expect("write");
    flags.config = Some(path);
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let inputs = Inputs {
        flags,
        environment,
        home: Some("/home/u".into()),
    };
    Settings::load(&inputs).map_err(|error| error.to_string())
}

fn error(text: &str) -> String {
    load(&TempDir::new("config"), text, &[], Flags::default()).expect_err(text)
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let dir = TempDir::new("config");
    let file = "[log]\nlevel = \"warn\"\n[mempool]\nmax_mb = 100\n[p2p]\nmax_inbound = 5\n";
    let environment = [
        ("TIMED_LOG__LEVEL", "error"),
        ("TIMED_MEMPOOL__MAX_MB", "200"),
        ("PATH", "/bin"),
    ];
    let flags = Flags {
        log: Some("debug".into()),
        ..Flags::default()
    };
    let config = Config::from_settings(&load(&dir, file, &environment, flags).expect("valid"))
        .expect("valid");
    assert_eq!(
        config.log.level, "debug",
        "a flag wins over the environment"
    );
    assert_eq!(
        config.mempool.max_size, 200_000_000,
        "the environment wins over the file"
    );
    assert_eq!(config.p2p.max_inbound, 5, "the file wins over the default");
    assert_eq!(config.rpc.workers, 2, "else the default holds");
}

#[test]
fn unknown_names_are_errors_that_offer_the_nearest() {
    assert!(error("[p2p]\nmax_inbond = 3\n").contains(
        "timed.toml:2: there is no key \"p2p.max_inbond\"; did you mean \"p2p.max_inbound\"?"
    ));
    assert!(error("[rpcs]\n").contains("did you mean \"rpc\"?"));
    assert!(
        error("[p2p]\nworkers = 3\n").contains("did you mean \"rpc.workers\"?"),
        "a key in the wrong section"
    );
    assert!(
        error("[p2p]\ncolour = 3\n").contains("timed.toml(5) lists them"),
        "nothing near: no guess"
    );
    let variable = load(
        &TempDir::new("config"),
        "",
        &[("TIMED_RPC__BND", "x")],
        Flags::default(),
    )
    .expect_err("unknown");
    assert!(
        variable.contains("environment variable TIMED_RPC__BND") && variable.contains("rpc.bind"),
        "{variable}"
    );
}

#[test]
fn wrong_values_say_line_key_and_what_would_be_right() {
    let range = error("[mempool]\n\nmax_mb = 7\n");
    assert!(
        range.contains(
            "timed.toml:3: mempool.max_mb: 7 is out of range; give whole number, 8 to 1024 MB"
        ),
        "{range}"
    );
    for text in [
        "[mempool]\nmax_mb = \"64\"\n",
        "[mempool]\nmax_mb = -1\n",
        "[mempool]\nmax_mb = 1.5\n",
        "[mempool]\nmax_mb = 99999999999999999999999\n",
        "[wallet]\nenable = 1\n",
        "[node]\nnetwork = \"moon\"\n",
        "[p2p]\npeers = [\"nowhere\"]\n",
        "[p2p]\npeers = [1]\n",
        "[p2p]\npeers = \"a:1\"\n",
        "[rpc]\nbind = [\"localhost:1\"]\n",
        "[rpc]\nusers = [\"me:password\"]\n",
        "[threads]\nnet = \"x\"\n",
        "[log]\nlevel = \"loud\"\n",
        "[wallet]\ndefault = \"../x\"\n",
    ] {
        let message = error(text);
        assert!(
            message.contains("timed.toml:2: ") && message.contains("; give "),
            "{text}: {message}"
        );
    }
}

#[test]
fn what_is_not_toml_says_where() {
    for text in [
        "[node\n",
        "node = 3\n",
        "[node]\nnetwork \"dev\"\n",
        "[node]\n[node]\n",
        "\u{0}",
    ] {
        assert!(error(text).contains("timed.toml:"), "{text}");
    }
    assert!(
        error("[log]\nlevel = \"info\"\nlevel = \"warn\"\n").contains("timed.toml:3"),
        "a key twice"
    );
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_named() {
    let named = Flags {
        config: Some("/nonexistent/timed.toml".into()),
        ..Flags::default()
    };
    let error = Settings::load(&Inputs {
        flags: named,
        ..Inputs::default()
    })
    .expect_err("named");
    assert!(
        error.to_string().contains("/nonexistent/timed.toml"),
        "{error}"
    );
    let dir = TempDir::new("config");
    let flags = Flags {
        datadir: Some(dir.path().into()),
        ..Flags::default()
    };
    Settings::load(&Inputs {
        flags,
        ..Inputs::default()
    })
    .expect("a data directory without timed.toml has the defaults");
}

#[test]
fn timed_toml_of_the_datadir_is_read_and_its_paths_are_relative_to_it() {
    let dir = TempDir::new("config");
    std::fs::write(
        dir.path().join("timed.toml"),
        "[node]\nnetwork = \"dev\"\ngenesis = \"../genesis.toml\"\n",
    )
    .expect("write");
    let flags = Flags {
        datadir: Some(dir.path().into()),
        ..Flags::default()
    };
    let config = Config::load(&Inputs {
        flags,
        ..Inputs::default()
    })
    .expect("valid");
    assert_eq!(config.node.network, Network::Dev);
    assert_eq!(
        config.node.genesis,
        dir.path().join("../genesis.toml"),
        "a directory can be copied as a whole"
    );
    assert_eq!(
        config.p2p.bind,
        ["127.0.0.1:24300".parse().expect("address")],
        "dev listens on loopback"
    );
    assert_eq!(config.rpc.rate_user, 0, "no rate limit on dev");
    assert_eq!(
        config.wallet.default.as_deref(),
        Some("default"),
        "dev has a wallet"
    );
    assert_eq!(config.masternode.operator_key, None, "no key there");
}

#[test]
fn defaults_follow_the_network() {
    let dir = TempDir::new("config");
    let config = Config::from_settings(&load(&dir, "", &[], Flags::default()).expect("valid"))
        .expect("valid");
    assert_eq!(config.node.datadir, PathBuf::from("/home/u/.timecoin/main"));
    assert_eq!(
        config.node.genesis,
        PathBuf::from("/home/u/.timecoin/main/genesis.toml")
    );
    assert_eq!(config.p2p.bind.len(), 2, "IPv4 and IPv6");
    assert!(config.p2p.bind_is_default);
    assert_eq!(
        config.rpc.bind,
        ["127.0.0.1:24101".parse().expect("address")],
        "HTTP is on loopback by default"
    );
    assert_eq!(
        (config.rpc.rate_anonymous, config.rpc.rate_user),
        (100, 10_000)
    );
    assert!(config.storage.map_size == 64 << 30, "units are applied");
    let test = load(&dir, "[node]\nnetwork = \"test\"\n", &[], Flags::default()).expect("valid");
    assert_eq!(
        Config::from_settings(&test).expect("valid").rpc.bind[0].port(),
        24_201
    );
}

#[test]
fn method_lists_belong_to_users() {
    let dir = TempDir::new("config");
    let hash = "00".repeat(32);
    let users = format!("[rpc]\nusers = [\"a:s${hash}\", \"b:s${hash}\"]\n");
    let settings = load(
        &dir,
        &format!("{users}methods = [\"a:getblockcount, stop\"]\n"),
        &[],
        Flags::default(),
    );
    let rpc = Config::from_settings(&settings.expect("valid"))
        .expect("valid")
        .rpc;
    let listed = ["getblockcount", "stop"].map(str::to_owned);
    assert_eq!(rpc.users[0].methods, Some(listed.into()));
    assert_eq!(rpc.users[1].methods, None, "who is not listed may call all");
    let settings = load(
        &dir,
        &format!("{users}methods = [\"c:stop\"]\n"),
        &[],
        Flags::default(),
    )
    .expect("well-formed");
    let error = Config::from_settings(&settings)
        .expect_err("c is nobody")
        .to_string();
    assert!(error.contains("\"c\""), "{error}");
}

#[test]
fn a_reload_knows_what_changed() {
    let dir = TempDir::new("config");
    let old = load(&dir, "[rpc]\nworkers = 2\n", &[], Flags::default()).expect("valid");
    let text = "[rpc]\nworkers = 3\n[log]\nlevel = \"warn\"\n";
    let new = load(&dir, text, &[], Flags::default()).expect("valid");
    let changed: Vec<(String, bool)> = new
        .differences(&old)
        .into_iter()
        .map(|key| (key.full_name(), key.reloadable))
        .collect();
    assert_eq!(
        changed,
        [
            ("rpc.workers".to_owned(), false),
            ("log.level".to_owned(), true)
        ],
        "a key set to its default has not changed; one that needs a restart is told apart"
    );
}

#[test]
fn printed_configuration_reads_back_the_same() {
    let dir = TempDir::new("config");
    let text = "[node]\nnetwork = \"dev\"\n[p2p]\npeers = [\"a.example:1\", \"[::1]:2\"]\n[threads]\nnet = \"0-2\"\n";
    let first = load(&dir, text, &[], Flags::default()).expect("valid");
    let printed = print_config(&first);
    assert!(
        printed.contains("timed.toml:2"),
        "each value says where it came from: {printed}"
    );
    let second =
        load(&dir, &printed, &[], Flags::default()).expect("what is printed is a valid file");
    let values = |settings: &Settings| {
        let value = |key: &super::KeySpec| {
            settings
                .get(key.section, key.name)
                .map(|(value, _)| value.clone())
        };
        super::keys().iter().map(value).collect::<Vec<_>>()
    };
    assert_eq!(values(&first), values(&second), "nothing is lost in print");
}

#[test]
fn the_example_is_valid_as_it_stands_and_with_all_its_lines() {
    let dir = TempDir::new("config");
    let text = packaged_example();
    let config = Config::from_settings(&load(&dir, &text, &[], Flags::default()).expect("valid"))
        .expect("valid");
    assert_eq!(
        config.node.network,
        Network::Dev,
        "the service starts with zero edits"
    );
    assert_eq!(config.node.datadir, PathBuf::from("/var/lib/timecoin"));
    let plain = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') && !rest.trim_end().ends_with('=') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = example("", &[]).lines().map(plain).collect();
    load(&dir, &all.join("\n"), &[], Flags::default())
        .expect("every commented default is itself valid");
}
