//! `celeriac`: what the command line can do without an app. A worker of Rust tasks is a program of one's own.

fn main() -> std::process::ExitCode {
    celeriac::cli::run_without_app()
}
