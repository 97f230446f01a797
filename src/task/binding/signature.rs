//! [`Signature`]: a handler's parameters.

/// A handler's parameters, as Python's `inspect.signature` knows them. The context is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The function's name, as errors name it.
    pub function: &'static str,
    /// The parameters, in order. Those after an [`Kind::Args`] are given by name only.
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
        let count = self.parameters.iter().take_while(|parameter| parameter.takes_one()).count();
        &self.parameters[..count]
    }

    /// Whether it takes any number of arguments by position.
    pub fn takes_all_positions(&self) -> bool {
        self.has(Kind::Args)
    }

    /// Whether there is a parameter of `kind`.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.parameters.iter().any(|parameter| parameter.kind == kind)
    }

    /// The parameter that an argument by name goes to.
    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        self.parameters.iter().position(|parameter| parameter.takes_one() && parameter.name == name)
    }
}

impl Parameter {
    /// Whether it takes one argument, and not all further ones.
    pub(super) fn takes_one(&self) -> bool {
        matches!(self.kind, Kind::Required | Kind::Optional)
    }
}
