//! Celery's options and commands that have no effect here yet: refused by name, never ignored.

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};

use super::Whose;
use super::options::CommandLine;

/// An option that Celery has.
struct Refused {
    long: &'static str,
    short: Option<char>,
    /// The name of its value; none for a flag.
    value: Option<&'static str>,
    heading: &'static str,
    /// Why, where "not yet" is not the reason.
    reason: Option<&'static str>,
}

const fn flag(long: &'static str, short: Option<char>, heading: &'static str) -> Refused {
    Refused { long, short, value: None, heading, reason: None }
}

const fn option(long: &'static str, short: Option<char>, value: &'static str, heading: &'static str) -> Refused {
    Refused { long, short, value: Some(value), heading, reason: None }
}

const COMPILED_IN: Option<&str> = Some("not supported: the app of this program is compiled into it");

/// Why a program without tasks has no use for an app.
const NO_PROJECT: &str = "this program has no tasks, it asks and steers workers: a project's tasks are run by the celeriac \
                          that pip installs";

const GLOBAL: &[Refused] = &[
    Refused { reason: COMPILED_IN, ..option("app", Some('A'), "APP", "Global Options") },
    Refused { reason: COMPILED_IN, ..option("loader", None, "LOADER", "Global Options") },
];

const WORKER: &[Refused] = &[
    flag("detach", Some('D'), "Worker Options"),
    option("max-tasks-per-child", None, "N", "Pool Options"),
    option("max-memory-per-child", None, "KIB", "Pool Options"),
    option("pool-start-method", None, "METHOD", "Pool Options"),
    option("include", Some('I'), "MODULES", "Queue Options"),
    option("uid", None, "USER", "Daemonization Options"),
    option("gid", None, "GROUP", "Daemonization Options"),
    option("umask", None, "MASK", "Daemonization Options"),
    option("executable", None, "FILE", "Daemonization Options"),
];

const BEAT: &[Refused] = &[
    flag("enable-remote-control", None, "Beat Options"),
    option("hostname", Some('n'), "NAME", "Beat Options"),
    option("uid", None, "USER", "Daemonization Options"),
    option("gid", None, "GROUP", "Daemonization Options"),
    option("umask", None, "MASK", "Daemonization Options"),
    option("executable", None, "FILE", "Daemonization Options"),
];

/// Celery's commands that are not there, and why, where "not yet" is not the reason.
const COMMANDS: &[(&str, Option<&str>)] = &[
    ("amqp", Some("not supported: to look into RabbitMQ use rabbitmqctl, rabbitmqadmin or celery amqp")),
    ("graph", None),
    ("logtool", None),
    ("migrate", None),
    ("multi", None),
    ("shell", Some("not supported: a program in Rust has no shell; use celery shell, or celeriac call and result")),
    ("upgrade", None),
];

/// The command with the options that it will refuse, so that help lists them and their values are not taken for
/// something else.
pub(super) fn declare(command: Command) -> Command {
    // Their environment variables belong to the Python side of a project, and do not concern us.
    let command = command.args(GLOBAL.iter().map(Refused::argument));
    let command = command
        .mut_subcommand("worker", |worker| worker.args(WORKER.iter().map(|refused| refused.with_variable("WORKER"))));
    let command =
        command.mut_subcommand("beat", |beat| beat.args(BEAT.iter().map(|refused| refused.with_variable("BEAT"))));
    command.subcommands(COMMANDS.iter().map(|(name, _)| {
        let command = Command::new(*name).hide(true).disable_help_flag(true);
        command.arg(Arg::new("any").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
    }))
}

/// What was given and cannot be done, in words.
pub(super) fn refusal(matches: &ArgMatches, whose: Whose) -> Option<String> {
    let global = GLOBAL.iter().find(|refused| refused.is_given(matches)).map(|refused| refused.message_to(whose));
    global.or_else(|| match matches.subcommand() {
        Some(("worker", matches)) => WORKER.iter().find(|refused| refused.is_given(matches)).map(Refused::message),
        Some(("beat", matches)) => BEAT.iter().find(|refused| refused.is_given(matches)).map(Refused::message),
        Some((name, _)) => {
            let (_, reason) = COMMANDS.iter().find(|(refused, _)| *refused == name)?;
            Some(format!("the command {name} is {}", reason.unwrap_or("not supported yet")))
        }
        None => None,
    })
}

/// What was given after the command and belongs before it, as it was written (`-b`), in words.
pub(super) fn misplaced(argument: &str, whose: Whose) -> Option<String> {
    let is = |long: Option<&str>, short: Option<char>| {
        argument.strip_prefix("--").is_some_and(|name| long == Some(name))
            || argument.strip_prefix('-').is_some_and(|name| name.chars().eq(short))
    };
    let refused = GLOBAL.iter().find(|refused| is(Some(refused.long), refused.short));
    let is_read = |refused: &Refused| matches!(whose, Whose::Host(reads) if reads.has("", refused.long));
    if let Some(refused) = refused.filter(|refused| !is_read(refused)) {
        return Some(refused.message_to(whose));
    }
    let global = CommandLine::command();
    let known = global.get_arguments().any(|option| is(option.get_long(), option.get_short()));
    (known || refused.is_some())
        .then(|| format!("unexpected argument '{argument}' found; it goes before the command, not after it"))
}

impl Refused {
    fn argument(&self) -> Arg {
        let help = self.reason.map_or("Not supported yet".to_owned(), capitalized);
        let argument = Arg::new(self.long).long(self.long).help(help).help_heading(self.heading);
        let argument = match self.value {
            Some(name) => argument.value_name(name).allow_hyphen_values(true),
            None => argument.action(ArgAction::SetTrue).value_parser(BoolishValueParser::new()),
        };
        self.short.map_or(argument.clone(), |short| argument.short(short))
    }

    fn with_variable(&self, command: &str) -> Arg {
        let name = format!("CELERY_{command}_{}", self.long.replace('-', "_").to_uppercase());
        self.argument().env(name).hide_env(true)
    }

    fn is_given(&self, matches: &ArgMatches) -> bool {
        let given =
            matches!(matches.value_source(self.long), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        given && (self.value.is_some() || matches.get_flag(self.long))
    }

    fn message_to(&self, whose: Whose) -> String {
        match whose {
            Whose::Nobody => format!("--{}: {NO_PROJECT}", self.long),
            _ => self.message(),
        }
    }

    fn message(&self) -> String {
        format!("--{} is {}", self.long, self.reason.unwrap_or("not supported yet"))
    }
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}", first.to_uppercase())
}
