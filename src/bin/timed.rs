//! `timed`, the node.

use std::process::ExitCode;

use timecoin::node::cli::{self, Parsed};
use timecoin::node::commands::{self, CommandError};
use timecoin::node::exit::Exit;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(|word| word.into_string())
        .collect();
    let Ok(arguments) = arguments else {
        let error = CommandError::new(Exit::Usage, "the command line is not UTF-8");
        return ExitCode::from(commands::fail(&error));
    };
    let code = match cli::parse(&arguments) {
        Ok(Parsed::Text(text)) => {
            commands::print(&text);
            Exit::Success.code()
        }
        Ok(Parsed::Run(invocation)) => commands::execute(invocation),
        Err(error) => commands::fail(&CommandError::new(error.exit(), error.to_string())),
    };
    ExitCode::from(code)
}
