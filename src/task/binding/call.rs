//! [`Call`]: arguments sorted to their parameters.

use serde::de::DeserializeOwned;

use super::mismatch::Mismatch;
use super::{Kind, Signature};
use crate::protocol::{Map, Value, from_value};
use crate::task::{Arguments, Interrupt};

/// The arguments of one call, sorted to the parameters of its signature. Each is taken once, as the type that the
/// handler wants.
#[derive(Debug)]
pub struct Call {
    signature: &'static Signature,
    /// One place for each parameter.
    values: Vec<Option<Value>>,
    /// What `#[args]` takes.
    rest: Vec<Value>,
    /// What `#[kwargs]` takes.
    named: Map,
}

impl Call {
    /// Sorts `arguments` to the parameters of `signature`.
    ///
    /// # Errors
    /// A failure with `TypeError`, if the same call of a Python function would raise one.
    pub fn bind(signature: &'static Signature, arguments: Arguments) -> Result<Self, Interrupt> {
        let values = vec![None; signature.parameters.len()];
        let mut call = Call { signature, values, rest: Vec::new(), named: Map::default() };
        call.fill(arguments).map_err(|mismatch| mismatch.into_interrupt(signature))?;
        Ok(call)
    }

    /// The checks come in CPython's order, so that of several mistakes the same one is told.
    fn fill(&mut self, arguments: Arguments) -> Result<(), Mismatch> {
        let given = arguments.args.len();
        self.fill_by_position(arguments.args);
        self.fill_by_name(arguments.kwargs)?;
        if !self.rest.is_empty() && !self.signature.has(Kind::Args) {
            return Err(Mismatch::TooMany { given });
        }
        let positional = self.signature.positional().len();
        self.require(0..positional, false)?;
        self.require(positional..self.values.len(), true)
    }

    fn fill_by_position(&mut self, args: Vec<Value>) {
        let mut args = args.into_iter();
        let positional = self.signature.positional().len();
        for place in &mut self.values[..positional] {
            *place = args.next();
        }
        self.rest = args.collect();
    }

    fn fill_by_name(&mut self, kwargs: Map) -> Result<(), Mismatch> {
        let collects = self.signature.has(Kind::Kwargs);
        for (name, value) in kwargs {
            match self.signature.index_of(&name) {
                Some(index) if self.values[index].is_some() => {
                    return Err(Mismatch::Repeated { name: self.signature.parameters[index].name });
                }
                Some(index) => self.values[index] = Some(value),
                None if collects => drop(self.named.insert(name, value)),
                None => return Err(Mismatch::Unexpected { name }),
            }
        }
        Ok(())
    }

    fn require(&self, range: std::ops::Range<usize>, by_name: bool) -> Result<(), Mismatch> {
        let missing =
            |index: &usize| self.values[*index].is_none() && self.signature.parameters[*index].kind == Kind::Required;
        let names: Vec<_> = range.filter(missing).map(|index| self.signature.parameters[index].name).collect();
        if names.is_empty() { Ok(()) } else { Err(Mismatch::Missing { names, by_name }) }
    }

    /// The argument of the required parameter at `index`.
    ///
    /// # Errors
    /// A failure with `TypeError`, if the value is of another type.
    pub fn required<T: DeserializeOwned>(&mut self, index: usize) -> Result<T, Interrupt> {
        let value = self.values[index].take().unwrap_or_default();
        self.convert(index, value)
    }

    /// The argument of the parameter at `index`, or its default.
    ///
    /// # Errors
    /// A failure with `TypeError`, if the value is of another type.
    pub fn optional<T: DeserializeOwned>(&mut self, index: usize, default: impl FnOnce() -> T) -> Result<T, Interrupt> {
        match self.values[index].take() {
            Some(value) => self.convert(index, value),
            None => Ok(default()),
        }
    }

    /// All further arguments by position, for the parameter at `index`.
    ///
    /// # Errors
    /// A failure with `TypeError`, if a value is of another type than the parameter's items.
    pub fn rest<T: DeserializeOwned>(&mut self, index: usize) -> Result<T, Interrupt> {
        let rest = std::mem::take(&mut self.rest);
        self.convert(index, Value::List(rest))
    }

    /// All further arguments by name, for the parameter at `index`.
    ///
    /// # Errors
    /// A failure with `TypeError`, if a value is of another type than the parameter's.
    pub fn named<T: DeserializeOwned>(&mut self, index: usize) -> Result<T, Interrupt> {
        let named = std::mem::take(&mut self.named);
        self.convert(index, Value::Map(named))
    }

    fn convert<T: DeserializeOwned>(&self, index: usize, value: Value) -> Result<T, Interrupt> {
        let name = self.signature.parameters[index].name;
        from_value(value)
            .map_err(|error| Mismatch::Unfit { name, reason: error.to_string() }.into_interrupt(self.signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Exception;
    use crate::task::binding::Parameter;

    const fn parameter(name: &'static str, kind: Kind) -> Parameter {
        Parameter { name, kind }
    }

    const X: Parameter = parameter("x", Kind::Required);
    const Y: Parameter = parameter("y", Kind::Required);
    const Z: Parameter = parameter("z", Kind::Optional);
    const ARGS: Parameter = parameter("args", Kind::Args);
    const KWARGS: Parameter = parameter("kwargs", Kind::Kwargs);

    static NONE: Signature = Signature { function: "none", parameters: &[] };
    static ONE: Signature = Signature { function: "one", parameters: &[X] };
    static ADD: Signature = Signature { function: "add", parameters: &[X, Y] };
    static SUM: Signature = Signature { function: "sum", parameters: &[X, Y, Z] };
    static LONG: Signature = Signature { function: "long", parameters: &[X, Y, parameter("w", Kind::Required)] };
    static ECHO: Signature = Signature { function: "echo", parameters: &[ARGS, KWARGS] };
    static NAMED: Signature = Signature { function: "named", parameters: &[ARGS, X, Y, Z] };

    fn arguments(args: &[i64], kwargs: &[(&str, i64)]) -> Arguments {
        Arguments {
            args: args.iter().copied().map(Value::Int).collect(),
            kwargs: kwargs.iter().map(|(name, value)| (*name, Value::Int(*value))).collect(),
        }
    }

    fn type_error(interrupt: Interrupt) -> String {
        let Interrupt::Failure { exception: Exception { exc_type, exc_module, exc_message }, .. } = interrupt else {
            panic!("no failure: {interrupt:?}");
        };
        assert_eq!((exc_type.as_str(), exc_module.as_deref()), ("TypeError", Some("builtins")));
        let [Value::String(text)] = exc_message.as_slice() else { panic!("not one text: {exc_message:?}") };
        text.clone()
    }

    /// The expected texts are what CPython 3.11 says of `def add(x, y)` and so on.
    #[test]
    fn a_call_that_does_not_fit_fails_in_the_words_of_python() {
        let check = |signature: &'static Signature, args: &[i64], kwargs: &[(&str, i64)], expected: &str| {
            let refused = Call::bind(signature, arguments(args, kwargs)).map(|_| ()).unwrap_err();
            assert_eq!(type_error(refused), expected);
        };
        check(&ADD, &[1], &[], "add() missing 1 required positional argument: 'y'");
        check(&ADD, &[], &[], "add() missing 2 required positional arguments: 'x' and 'y'");
        check(&LONG, &[], &[], "long() missing 3 required positional arguments: 'x', 'y', and 'w'");
        check(&NONE, &[1], &[], "none() takes 0 positional arguments but 1 was given");
        check(&NONE, &[1, 2], &[], "none() takes 0 positional arguments but 2 were given");
        check(&ONE, &[1, 2], &[], "one() takes 1 positional argument but 2 were given");
        check(&ADD, &[1, 2, 3], &[], "add() takes 2 positional arguments but 3 were given");
        check(&SUM, &[1, 2, 3, 4], &[], "sum() takes from 2 to 3 positional arguments but 4 were given");
        check(&ADD, &[1, 2], &[("q", 1)], "add() got an unexpected keyword argument 'q'");
        check(&ADD, &[1, 2], &[("x", 1)], "add() got multiple values for argument 'x'");
        check(&ADD, &[1, 2, 3], &[("q", 1)], "add() got an unexpected keyword argument 'q'");
        check(&ADD, &[1, 2, 3], &[("x", 1)], "add() got multiple values for argument 'x'");
        check(&ADD, &[1], &[("", 1)], "add() got an unexpected keyword argument ''");
        check(&SUM, &[1], &[("z", 2)], "sum() missing 1 required positional argument: 'y'");
        check(&NAMED, &[1], &[], "named() missing 2 required keyword-only arguments: 'x' and 'y'");
        check(&NAMED, &[], &[("y", 1)], "named() missing 1 required keyword-only argument: 'x'");
        check(&NAMED, &[1, 2], &[("args", 1)], "named() got an unexpected keyword argument 'args'");
    }

    #[test]
    fn arguments_reach_their_parameters() {
        let mut call = Call::bind(&SUM, arguments(&[1], &[("y", 2)])).unwrap();
        assert_eq!(call.required::<i64>(0).unwrap(), 1);
        assert_eq!(call.required::<i64>(1).unwrap(), 2);
        assert_eq!(call.optional(2, || 7).unwrap(), 7);

        let mut call = Call::bind(&NAMED, arguments(&[1, 2], &[("y", 4), ("x", 3)])).unwrap();
        assert_eq!(call.rest::<Vec<i64>>(0).unwrap(), [1, 2]);
        assert_eq!((call.required::<i64>(1).unwrap(), call.required::<i64>(2).unwrap()), (3, 4));

        let mut call = Call::bind(&ECHO, arguments(&[1], &[("args", 2), ("kwargs", 3)])).unwrap();
        assert_eq!(call.rest::<Vec<Value>>(0).unwrap(), [Value::Int(1)]);
        let named: Map = call.named(1).unwrap();
        assert_eq!(named, arguments(&[], &[("args", 2), ("kwargs", 3)]).kwargs);
    }

    #[test]
    fn a_value_of_another_type_names_its_argument() {
        let mut call =
            Call::bind(&ADD, Arguments { args: vec!["one".into(), 2.into()], ..Default::default() }).unwrap();
        let text = type_error(call.required::<i64>(0).unwrap_err());
        assert!(text.starts_with("add() argument 'x': ") && text.len() > 25, "{text}");
        // An argument that may be left out, or be `None`, is not of any type for that.
        let mut call =
            Call::bind(&SUM, Arguments { args: vec![1.into(), 2.into(), Value::Null], ..Default::default() }).unwrap();
        assert_eq!(call.optional::<Option<i64>>(2, || Some(7)).unwrap(), None);
    }
}
