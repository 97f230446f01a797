//! The function's parameters, and the attributes that only they have: `#[default]`, `#[args]`, `#[kwargs]`.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::{Attribute, Error, Expr, FnArg, Meta, Pat, PatType, Path, Result, Signature, Type};

use crate::options::combine;

/// The parameters of a task.
pub(crate) struct Parameters {
    /// Whether the first one is the context, and how it is taken.
    pub(crate) context: Option<Context>,
    /// The others.
    pub(crate) list: Vec<Parameter>,
}

/// How the context is taken.
#[derive(Clone, Copy)]
pub(crate) enum Context {
    Owned,
    Borrowed,
}

/// One parameter that a message fills.
pub(crate) struct Parameter {
    /// What callers name it.
    pub(crate) name: String,
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) kind: Kind,
    span: Span,
}

/// What a parameter takes.
pub(crate) enum Kind {
    Required,
    /// With the default's expression, or `Default::default()`.
    Optional(Option<Box<Expr>>),
    Args,
    Kwargs,
}

impl Parameters {
    /// Reads the parameters of `signature` and takes our attributes off them.
    pub(crate) fn take(signature: &mut Signature) -> Result<Self> {
        let mut parameters = Parameters { context: None, list: Vec::new() };
        let mut mistakes = Vec::new();
        for (index, input) in signature.inputs.iter_mut().enumerate() {
            mistakes.extend(parameters.add(index, input).err());
        }
        mistakes.extend(parameters.check_order().err());
        combine(mistakes).map_or(Ok(parameters), Err)
    }

    fn add(&mut self, index: usize, input: &mut FnArg) -> Result<()> {
        let input = match input {
            FnArg::Typed(input) => input,
            FnArg::Receiver(receiver) => {
                return Err(Error::new(
                    receiver.self_token.span,
                    "a task is a free function: no message brings a `self`",
                ));
            }
        };
        match context(&input.ty) {
            Some(context) if index == 0 => self.context = Some(context),
            Some(_) => return Err(Error::new_spanned(&input.ty, "the context is a task's first parameter")),
            None => self.list.push(parameter(input)?),
        }
        Ok(())
    }

    /// Python's rules: `def add(x, y=0, *args, z, **kwargs)`.
    fn check_order(&self) -> Result<()> {
        let (mut after_default, mut after_args, mut after_kwargs) = (false, false, false);
        for parameter in &self.list {
            let mistake = match parameter.kind {
                _ if after_kwargs => "no parameter follows `#[kwargs]`",
                Kind::Args if after_args => "a task has one `#[args]` parameter at most",
                Kind::Required if after_default && !after_args => {
                    "a parameter without a default follows one with a default: give it one, or put it before"
                }
                _ => "",
            };
            if !mistake.is_empty() {
                return Err(Error::new(parameter.span, mistake));
            }
            after_default |= matches!(parameter.kind, Kind::Optional(_));
            after_args |= matches!(parameter.kind, Kind::Args);
            after_kwargs |= matches!(parameter.kind, Kind::Kwargs);
        }
        Ok(())
    }
}

fn context(ty: &Type) -> Option<Context> {
    let is_context = |path: &Path| path.segments.last().is_some_and(|segment| segment.ident == "TaskContext");
    match ty {
        Type::Path(ty) if is_context(&ty.path) => Some(Context::Owned),
        Type::Reference(reference) => context(&reference.elem).map(|_| Context::Borrowed),
        _ => None,
    }
}

fn parameter(input: &mut PatType) -> Result<Parameter> {
    let ident = ident(&input.pat)?.clone();
    check_type(&input.ty)?;
    let kind = kind(&mut input.attrs)?;
    Ok(Parameter { name: ident.unraw().to_string(), ty: (*input.ty).clone(), kind, span: ident.span(), ident })
}

fn ident(pattern: &Pat) -> Result<&Ident> {
    match pattern {
        Pat::Ident(pattern) if pattern.subpat.is_none() && pattern.by_ref.is_none() => Ok(&pattern.ident),
        _ => Err(Error::new_spanned(pattern, "a task's parameter is a name: callers may give its argument by name")),
    }
}

fn check_type(ty: &Type) -> Result<()> {
    let mistake = match ty {
        Type::Reference(_) => "a task owns its arguments: take `String` for `&str`, `Vec<T>` for `&[T]`",
        Type::ImplTrait(_) => "a task cannot be generic: a message names no types",
        _ => return Ok(()),
    };
    Err(Error::new_spanned(ty, mistake))
}

/// What the attributes say; ours are removed, as the compiler does not know them.
fn kind(attributes: &mut Vec<Attribute>) -> Result<Kind> {
    let mut kind = Kind::Required;
    let mut kept = Vec::new();
    for attribute in attributes.drain(..) {
        let Some(said) = own(&attribute)? else {
            kept.push(attribute);
            continue;
        };
        if !matches!(kind, Kind::Required) {
            return Err(Error::new_spanned(attribute, "one of `#[default]`, `#[args]`, `#[kwargs]` is enough"));
        }
        kind = said;
    }
    *attributes = kept;
    Ok(kind)
}

fn own(attribute: &Attribute) -> Result<Option<Kind>> {
    let name = attribute.path().get_ident().map(ToString::to_string).unwrap_or_default();
    let bare = || attribute.meta.require_path_only().map(|_| ());
    match name.as_str() {
        "default" => default(&attribute.meta).map(Some),
        "args" => bare().map(|()| Some(Kind::Args)),
        "kwargs" => bare().map(|()| Some(Kind::Kwargs)),
        "allow" | "expect" | "warn" | "deny" | "forbid" => Ok(None),
        _ => Err(Error::new_spanned(
            attribute,
            "unknown attribute: a task's parameter can have `#[default]`, `#[default(…)]`, `#[args]` or `#[kwargs]`",
        )),
    }
}

fn default(meta: &Meta) -> Result<Kind> {
    match meta {
        Meta::Path(_) => Ok(Kind::Optional(None)),
        Meta::List(list) => Ok(Kind::Optional(Some(Box::new(list.parse_args()?)))),
        Meta::NameValue(pair) => Ok(Kind::Optional(Some(Box::new(pair.value.clone())))),
    }
}
