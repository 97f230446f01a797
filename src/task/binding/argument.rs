//! What a call of a task is made of: [`IntoArgument`] for typed calls, [`signature`] and `args!` for others.

use serde::Serialize;

use crate::protocol::{Signature, Value, to_value};

/// A call of the task `name`, in whatever language it is written, with arguments by position. The methods of
/// [`Signature`] add arguments by name, options and callbacks.
///
/// ```
/// use celeriac::{args, signature};
///
/// let call = signature("shop.tasks.add", args![2, 3]).kwarg("z", 4).queue("sums").countdown(1.5);
/// assert_eq!(call.args, args![2, 3]);
/// ```
pub fn signature(name: impl Into<String>, args: Vec<Value>) -> Signature {
    Signature { args, ..Signature::new(name) }
}

/// A list of arguments: whatever serde can serialize, each of its own type.
///
/// ```
/// use celeriac::{args, protocol::Value};
///
/// assert_eq!(args![1, "two", [3.0]], [Value::from(1), Value::from("two"), Value::from([3.0])]);
/// ```
///
/// # Panics
/// When a value cannot be serialized: a map with keys that are no text, or a type whose own `Serialize` fails.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        ::std::vec::Vec::<$crate::protocol::Value>::from([$($crate::task::binding::argument(&$value)),*])
    };
}

/// What `args!` makes of each argument.
///
/// # Panics
/// When the value cannot be serialized, as `serde_json::json!` does: a mistake in the program and not in its input.
pub fn argument<T: Serialize + ?Sized>(value: &T) -> Value {
    match to_value(value) {
        Ok(value) => value,
        Err(error) => panic!("an argument cannot be serialized: {error}"),
    }
}

/// What can be given for a parameter of type `T`: a `T`, a reference to one, text for a `String`, and any [`Value`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no argument for a parameter of type `{T}`",
    label = "the parameter is of type `{T}`",
    note = "an argument is a `{T}` that serde can serialize, a reference to one, or a `celeriac::protocol::Value`"
)]
pub trait IntoArgument<T> {
    /// The argument as messages carry it.
    ///
    /// # Panics
    /// When the value cannot be serialized: see [`argument`].
    fn into_argument(self) -> Value;
}

impl<T: Serialize> IntoArgument<T> for T {
    fn into_argument(self) -> Value {
        argument(&self)
    }
}

impl<T: Serialize> IntoArgument<T> for &T {
    fn into_argument(self) -> Value {
        argument(self)
    }
}

impl IntoArgument<String> for &str {
    fn into_argument(self) -> Value {
        self.into()
    }
}

impl<T: Serialize> IntoArgument<Vec<T>> for &[T] {
    fn into_argument(self) -> Value {
        argument(self)
    }
}
