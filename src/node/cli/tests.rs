//! The command line as people type it.

use super::*;
use proptest::prelude::*;

fn try_parse(line: &str) -> Result<Parsed, UsageError> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&arguments)
}

fn run(line: &str) -> Invocation {
    match try_parse(line) {
        Ok(Parsed::Run(invocation)) => invocation,
        other => panic!("timed {line} is a command, not {other:?}"),
    }
}

#[test]
fn the_node_runs_without_a_command() {
    let invocation = run("--config a.toml --network=dev --datadir=/d --log debug");
    assert_eq!(invocation.command, Command::Node);
    let flags = Flags {
        config: Some("a.toml".into()),
        network: Some("dev".into()),
        datadir: Some("/d".into()),
        log: Some("debug".into()),
    };
    assert_eq!(invocation.flags, flags, "--k v and --k=v are the same");
}

#[test]
fn global_options_may_stand_after_the_command() {
    for line in [
        "--network dev --datadir d init",
        "init --network dev --datadir d",
        "init --network=dev --datadir=d",
    ] {
        let invocation = run(line);
        assert_eq!(invocation.command, Command::Init);
        assert_eq!(invocation.flags.network.as_deref(), Some("dev"), "{line}");
        assert_eq!(invocation.flags.datadir, Some("d".into()), "{line}");
    }
}

#[test]
fn networks_to_make_and_to_run() {
    let testnet = |line: &str| match run(line).command {
        Command::Testnet(options) => options,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(
        (
            testnet("testnet --out d").nodes,
            testnet("testnet --out d --hosts a,b,c").nodes
        ),
        (4, 3)
    );
    let options = testnet(
        "testnet --nodes=2 --out d --hosts a,b --base-port 9000 --slot-interval 7 --network test",
    );
    assert_eq!(
        (
            options.hosts.len(),
            options.base_port,
            options.slot_interval_s
        ),
        (2, Some(9_000), Some(7))
    );
    let Command::Devnet(options) = run("devnet --nodes 7 --seed 5 --dir x").command else {
        panic!("a devnet");
    };
    assert_eq!(
        (options.nodes, options.seed, options.dir),
        (7, Some(5), Some("x".into()))
    );
}

#[test]
fn a_running_devnet_is_acted_on() {
    let action = |line: &str| match run(line).command {
        Command::DevnetControl { dir, action } => (dir, action),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(action("devnet status"), (None, DevnetAction::Status));
    assert_eq!(
        action("devnet --dir x kill 2"),
        (Some("x".into()), DevnetAction::Kill(2))
    );
    assert_eq!(action("devnet start 0").1, DevnetAction::Start(0));
    assert_eq!(action("devnet pause 1").1, DevnetAction::Pause(1));
    assert_eq!(action("devnet resume 1").1, DevnetAction::Resume(1));
    let faucet = DevnetAction::Faucet {
        address: "dtime1x".into(),
        amount: "1.5".into(),
    };
    assert_eq!(action("devnet faucet dtime1x 1.5").1, faucet);
    assert_eq!(
        action("devnet kill 2 --dir x"),
        (Some("x".into()), DevnetAction::Kill(2)),
        "also after the action"
    );
}

#[test]
fn care_commands() {
    assert_eq!(run("signer status").command, Command::SignerStatus);
    let init = Command::SignerInit {
        above: 9,
        i_know: true,
    };
    assert_eq!(run("signer init --above=9 --i-know").command, init);
    assert_eq!(run("topology").command, Command::Topology);
    assert_eq!(run("db verify --datadir x").command, Command::DbVerify);
    assert_eq!(run("db rebuild").command, Command::DbRebuild);
    assert_eq!(run("--check-config").command, Command::CheckConfig);
    assert_eq!(
        run("--print-config --network dev").command,
        Command::PrintConfig
    );
}

#[test]
fn help_and_version_are_text_anywhere() {
    for line in [
        "-h",
        "--help",
        "devnet -h",
        "devnet --help",
        "signer init --help",
        "init -h --datadir x",
    ] {
        let Ok(Parsed::Text(text)) = try_parse(line) else {
            panic!("timed {line} prints help");
        };
        assert!(text.starts_with("Usage: timed"), "{line}: {text}");
    }
    for line in ["--version", "--version --datadir x", "devnet --version"] {
        assert_eq!(try_parse(line), Ok(Parsed::Text(version())), "{line}");
    }
}

#[test]
fn nonsense_is_a_usage_error_that_points_to_help() {
    for line in [
        "--nonsense",
        "nonsense",
        "--config",
        "--version=3",
        "devnet --nodes 0",
        "devnet --nodes 65",
        "devnet --nodes x",
        "devnet kill",
        "devnet kill x",
        "devnet kill 1 2",
        "devnet --nodes 3 status",
        "devnet --slot-interval 1",
        "testnet",
        "testnet --out d --hosts a,b --nodes 3",
        "testnet --out d --hosts a,,b",
        "signer",
        "signer init",
        "db",
        "--check-config devnet",
        "init extra",
        "--config a --config b",
    ] {
        let error = try_parse(line).expect_err(line);
        assert_eq!(error.exit(), Exit::Usage);
        assert!(
            error.to_string().contains("timed --help"),
            "{line}: {error}"
        );
    }
}

#[test]
fn every_command_and_option_explains_itself() {
    for row in commands() {
        assert!(!row.help.is_empty(), "{}", row.name);
        for option in row.options {
            assert!(
                option.name.starts_with("--") && !option.help.is_empty(),
                "{} {}",
                row.name,
                option.name
            );
        }
    }
}

proptest! {
    #[test]
    fn any_arguments_are_answered_without_panic(arguments in proptest::collection::vec(
        prop_oneof!["[-a-z=0-9]{0,12}", Just("devnet".to_owned()), Just("--dir".to_owned()), Just("-h".to_owned())], 0..6,
    )) {
        let _ = parse(&arguments);
    }
}
