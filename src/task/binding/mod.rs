//! How the arguments of a message meet the parameters of a handler: what `#[celeriac::task]` calls.

/// A handler's parameters, as Python's `inspect.signature` knows them. The context is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The function's name, as errors name it.
    pub function: &'static str,
    /// The parameters, in order.
    pub parameters: &'static [Parameter],
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One argument.
    Required,
    /// One argument, or its default.
    Optional,
    /// All further arguments by position: Python's `*args`.
    Args,
    /// All further arguments by name: Python's `**kwargs`.
    Kwargs,
}

impl Signature {
    /// The parameters that take an argument by position, in order: those before `#[args]`.
    pub fn positional(&self) -> &'static [Parameter] {
        let takes_one = |parameter: &Parameter| matches!(parameter.kind, Kind::Required | Kind::Optional);
        let count = self.parameters.iter().take_while(|parameter| takes_one(parameter)).count();
        &self.parameters[..count]
    }
}
