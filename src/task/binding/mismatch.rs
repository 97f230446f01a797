//! [`Mismatch`]: a call that does not fit, in CPython's words (Python/ceval.c `initialize_locals`).

use super::{Kind, Parameter, Signature};
use crate::protocol::Exception;
use crate::task::Interrupt;

/// Why arguments do not fit a signature.
#[derive(Debug, PartialEq)]
pub(super) enum Mismatch {
    /// Required parameters without argument; `by_name` for those that can be given by name only.
    Missing { names: Vec<&'static str>, by_name: bool },
    /// More arguments by position than parameters.
    TooMany { given: usize },
    /// A name that no parameter has.
    Unexpected { name: String },
    /// One parameter, given by position and by name.
    Repeated { name: &'static str },
    /// An argument of a type that the parameter cannot take.
    Unfit { name: &'static str, reason: String },
}

impl Mismatch {
    /// The task's failure: a `TypeError`.
    pub(super) fn into_interrupt(self, signature: &Signature) -> Interrupt {
        let text = format!("{}() {}", signature.function, self.reason(signature));
        Interrupt::Failure { exception: Exception::new("TypeError", text), traceback: None }
    }

    fn reason(self, signature: &Signature) -> String {
        match self {
            Mismatch::Missing { names, by_name } => missing(&names, by_name),
            Mismatch::TooMany { given } => too_many(signature.positional(), given),
            Mismatch::Unexpected { name } => format!("got an unexpected keyword argument '{name}'"),
            Mismatch::Repeated { name } => format!("got multiple values for argument '{name}'"),
            Mismatch::Unfit { name, reason } => format!("argument '{name}': {reason}"),
        }
    }
}

fn missing(names: &[&str], by_name: bool) -> String {
    let kind = if by_name { "keyword-only" } else { "positional" };
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    let listed = match quoted.as_slice() {
        [one] => one.clone(),
        [first, second] => format!("{first} and {second}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
        [] => String::new(),
    };
    let count = names.len();
    format!("missing {count} required {kind} argument{}: {listed}", plural(count != 1))
}

fn too_many(positional: &[Parameter], given: usize) -> String {
    let most = positional.len();
    let optional = positional.iter().filter(|parameter| parameter.kind == Kind::Optional).count();
    let takes = match optional {
        0 => format!("{most} positional argument{}", plural(most != 1)),
        _ => format!("from {} to {most} positional arguments", most - optional),
    };
    format!("takes {takes} but {given} {} given", if given == 1 { "was" } else { "were" })
}

fn plural(many: bool) -> &'static str {
    if many { "s" } else { "" }
}
