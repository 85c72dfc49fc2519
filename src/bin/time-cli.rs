//! `time-cli`, the command-line client.

use std::io::IsTerminal;
use std::process::ExitCode;

use timecoin::node::cli_cmds;
use timecoin::node::exit::Exit;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(|word| word.into_string())
        .collect();
    let Ok(arguments) = arguments else {
        eprintln!("time-cli: the command line is not UTF-8");
        return Exit::Usage.into();
    };
    let mut out = std::io::stdout();
    let terminal = out.is_terminal();
    cli_cmds::run(&arguments, &mut out, terminal).into()
}
