//! What the macro writes.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, ItemFn, Result, Signature};

use crate::calls;
use crate::options::{Options, combine};
use crate::parameters::{Context, Kind, Parameter, Parameters};

/// A type of the function's name, with the function as its `call`, and `Task` for it.
///
/// As a value the name is a function that returns the type's only value, and is a `Task` too. A unit struct would do
/// for that, but it would stand in the way of every `let` of that name in the module.
pub(crate) fn task(options: TokenStream, function: TokenStream) -> Result<TokenStream> {
    let mut function: ItemFn =
        syn::parse2(function).map_err(|error| Error::new(error.span(), "a task is a function"))?;
    let (options, parameters) = read(options, &mut function.sig)?;
    let declared = declaration(&function, &options, &parameters);
    let run = run(&function.sig, &parameters);
    let calls = calls::calls(&function, &options, &parameters);
    let cfgs: Vec<_> = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let item = item(&function);
    let ident = &function.sig.ident;
    Ok(quote! {
        #item

        #(#cfgs)*
        #calls

        #(#cfgs)*
        const _: () = {
            use ::celeriac::task as __task;

            #declared

            impl __task::Task for #ident {
                fn name(&self) -> &str {
                    &__DECLARATION.name
                }

                fn options(&self) -> &__task::TaskOptions {
                    &__DECLARATION.options
                }

                fn signature(&self) -> ::core::option::Option<&'static __task::binding::Signature> {
                    ::core::option::Option::Some(&__SIGNATURE)
                }

                #run
            }
        };
    })
}

/// Options and parameters; the mistakes of both are told at once.
fn read(options: TokenStream, signature: &mut Signature) -> Result<(Options, Parameters)> {
    let shape = check_shape(signature);
    match (Options::parse(options), shape, Parameters::take(signature)) {
        (Ok(options), Ok(()), Ok(parameters)) => Ok((options, parameters)),
        (options, shape, parameters) => {
            let mistakes = options.err().into_iter().chain(shape.err()).chain(parameters.err()).collect();
            Err(combine(mistakes).unwrap_or_else(|| Error::new(signature.ident.span(), "not a task")))
        }
    }
}

fn check_shape(signature: &Signature) -> Result<()> {
    let generics = &signature.generics;
    let mistake: (&dyn ToTokens, &str) = if !generics.params.is_empty() {
        (generics, "a task cannot be generic: a message names no types")
    } else if let Some(constness) = &signature.constness {
        (constness, "a task cannot be a `const fn`")
    } else if let Some(abi) = &signature.abi {
        (abi, "a task is a Rust function")
    } else if let Some(variadic) = &signature.variadic {
        (variadic, "a task takes further arguments with `#[args] rest: Vec<Value>`")
    } else {
        return Ok(());
    };
    Err(Error::new_spanned(mistake.0, mistake.1))
}

/// The type and its value, and the function as the type's `call`.
fn item(function: &ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, .. } = function;
    let is = |attribute: &&Attribute, name| attribute.path().is_ident(name);
    let cfgs: Vec<_> = attrs.iter().filter(|attribute| is(attribute, "cfg")).collect();
    let docs = attrs.iter().filter(|attribute| is(attribute, "doc"));
    let others = attrs.iter().filter(|attribute| !is(attribute, "doc") && !is(attribute, "cfg"));
    let ident = &sig.ident;
    let mut signature = sig.clone();
    signature.ident = Ident::new("call", ident.span());
    let explanation = format!("Calls the body of the task `{}`, without a worker.", ident.unraw());
    quote! {
        #(#cfgs)*
        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy)]
        #vis struct #ident {}

        #(#cfgs)*
        #[doc(hidden)]
        #vis fn #ident() -> &'static #ident {
            &#ident {}
        }

        #(#cfgs)*
        impl #ident {
            #(#others)*
            #[doc = #explanation]
            #vis #signature #block
        }
    }
}

fn declaration(function: &ItemFn, options: &Options, parameters: &Parameters) -> TokenStream {
    let name = function.sig.ident.unraw().to_string();
    let described = parameters.list.iter().map(described);
    let fields = &options.fields;
    let settings = if fields.is_empty() {
        quote!(__task::TaskOptions::default())
    } else {
        // A declaration may name every option, and then nothing is left for the update.
        quote!({
            #[allow(clippy::needless_update)]
            let options = __task::TaskOptions { #(#fields,)* ..__task::TaskOptions::default() };
            options
        })
    };
    let ident = &function.sig.ident;
    let declared = quote!(__task::binding::Declaration::named(#ident::NAME, #settings));
    quote! {
        static __SIGNATURE: __task::binding::Signature =
            __task::binding::Signature { function: #name, parameters: &[#(#described),*] };
        static __DECLARATION: ::std::sync::LazyLock<__task::binding::Declaration> =
            ::std::sync::LazyLock::new(|| #declared);
    }
}

fn described(parameter: &Parameter) -> TokenStream {
    let name = &parameter.name;
    let kind = match parameter.kind {
        Kind::Required => quote!(Required),
        Kind::Optional(_) => quote!(Optional),
        Kind::Args => quote!(Args),
        Kind::Kwargs => quote!(Kwargs),
    };
    quote!(__task::binding::Parameter { name: #name, kind: __task::binding::Kind::#kind })
}

/// `Task::run`: the arguments are taken in order, and the answer becomes an outcome.
fn run(signature: &Signature, parameters: &Parameters) -> TokenStream {
    let ident = &signature.ident;
    let names: Vec<_> = (0..parameters.list.len()).map(|index| format_ident!("__argument_{index}")).collect();
    let taken = names.iter().zip(&parameters.list).enumerate().map(|(index, (name, parameter))| {
        let value = taken(index, parameter);
        quote!(let #name = #value;)
    });
    let context = parameters.context.map(|context| match context {
        Context::Owned => quote!(__context,),
        Context::Borrowed => quote!(&__context,),
    });
    let (runner, body, wait) = match signature.asyncness {
        Some(_) => (quote!(run_async), quote!(async move), quote!(.await)),
        None => (quote!(run_blocking), quote!(move ||), TokenStream::new()),
    };
    let answer = answer(signature, quote!(#ident::call(#context #(#names),*)#wait));
    quote! {
        #[allow(unused_mut, unused_variables)]
        fn run(&self, __context: __task::TaskContext, __arguments: __task::Arguments) -> __task::Run {
            __task::binding::#runner(#body {
                let mut __call = __task::binding::Call::bind(&__SIGNATURE, __arguments)?;
                #(#taken)*
                ::core::result::Result::Ok(#answer)
            })
        }
    }
}

/// How the argument of one parameter is taken; mistakes in its type are shown at the type.
fn taken(index: usize, parameter: &Parameter) -> TokenStream {
    let ty = &parameter.ty;
    match &parameter.kind {
        Kind::Required => quote_spanned!(ty.span()=> __call.required::<#ty>(#index)?),
        Kind::Optional(None) => {
            quote_spanned!(ty.span()=> __call.optional::<#ty>(#index, ::core::default::Default::default)?)
        }
        Kind::Optional(Some(default)) => quote_spanned!(ty.span()=> __call.optional::<#ty>(#index, || #default)?),
        Kind::Args => quote_spanned!(ty.span()=> __call.rest::<#ty>(#index)?),
        Kind::Kwargs => quote_spanned!(ty.span()=> __call.named::<#ty>(#index)?),
    }
}

/// The outcome of `called`. What is plainly a `Result` is converted as one, for the sake of its error messages; for
/// any other type the compiler finds out whether it is more than a value.
fn answer(signature: &Signature, called: TokenStream) -> TokenStream {
    let syn::ReturnType::Type(_, ty) = &signature.output else {
        return quote!({ #called; __task::binding::PlainAnswer.outcome(()) });
    };
    let is_result = |path: &syn::Path| path.segments.last().is_some_and(|segment| segment.ident == "Result");
    match &**ty {
        syn::Type::Path(path) if is_result(&path.path) => {
            let converted = quote_spanned!(ty.span()=> __task::binding::IntoOutcome::into_outcome(__answer));
            quote!({
                let __answer = #called;
                #converted
            })
        }
        _ => {
            let converted = quote_spanned!(ty.span()=> (&__answer).answer_kind().outcome(__answer));
            quote!({
                #[allow(unused_imports)]
                use __task::binding::{AnswerKind as _, PlainKind as _};
                let __answer = #called;
                #converted
            })
        }
    }
}
