//! `timed`, the node.

use std::io::Write;
use std::process::ExitCode;

use timecoin::node::cli::{self, Command, Parsed};
use timecoin::node::config::{Config, Inputs, Settings, print_config};
use timecoin::node::exit::Exit;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(|word| word.into_string())
        .collect();
    let Ok(arguments) = arguments else {
        return fail("the command line is not UTF-8", Exit::Usage);
    };
    match cli::parse(&arguments) {
        Ok(Parsed::Text(text)) => {
            print(&text);
            Exit::Success.into()
        }
        Ok(Parsed::Run(invocation)) => {
            let network = invocation
                .flags
                .network
                .as_deref()
                .and_then(|n| n.parse().ok());
            let settings = match Settings::load(&Inputs::of_process(invocation.flags)) {
                Ok(settings) => settings,
                Err(error) => return fail(&error.to_string(), error.exit()),
            };
            match (Config::from_settings(&settings), invocation.command) {
                (Err(error), _) => fail(&error.to_string(), error.exit()),
                (Ok(_), Command::PrintConfig) => {
                    print(&print_config(&settings));
                    Exit::Success.into()
                }
                (Ok(_), Command::CheckConfig) => {
                    print("the configuration is valid\n");
                    Exit::Success.into()
                }
                (Ok(config), Command::Node) => ExitCode::from(timecoin::node::run::run(&config)),
                (Ok(_), Command::Testnet(options)) => {
                    match timecoin::node::testnet::make(&options, network) {
                        Ok(text) => {
                            print(&text);
                            Exit::Success.into()
                        }
                        Err(error) => fail(&error.to_string(), error.exit()),
                    }
                }
                (Ok(_), _) => fail("this build only checks configurations", Exit::Internal),
            }
        }
        Err(error) => fail(&error.to_string(), error.exit()),
    }
}

/// Writes data to standard output. A reader that has gone away is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Says on standard error why the program ends.
fn fail(message: &str, exit: Exit) -> ExitCode {
    eprintln!("timed: {message}");
    exit.into()
}
