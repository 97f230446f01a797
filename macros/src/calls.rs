//! The functions that make calls of a task: `add::s(1, 2)`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, ItemFn};

use crate::options::Options;
use crate::parameters::{Kind, Parameter, Parameters};

/// The task's name, and the functions that make signatures of it. Each takes the required parameters; the others are
/// given with `arg` and `kwarg`.
pub(crate) fn calls(function: &ItemFn, options: &Options, parameters: &Parameters) -> TokenStream {
    let (ident, vis) = (&function.sig.ident, &function.vis);
    let shown = ident.unraw();
    let name = name(ident, options);
    let required: Vec<&Parameter> =
        parameters.list.iter().filter(|parameter| matches!(parameter.kind, Kind::Required)).collect();
    let whole = signature(&required, parameters, 0);
    let partial = partial(function, &required, parameters);
    let taken = required.iter().map(|parameter| taken(parameter));
    let given = required.iter().map(|parameter| &parameter.ident);
    let taken: Vec<_> = taken.collect();
    let docs = [
        format!("The name of the task `{shown}`."),
        format!("A call of the task `{shown}`: in a chain, the result before it comes before its own arguments."),
        format!("A call of the task `{shown}` that ignores the result before it in a chain."),
        format!("A call of the task `{shown}` with whatever arguments by position."),
    ];
    let [name_doc, s_doc, si_doc, signature_doc] = docs;
    quote! {
        #[allow(dead_code, clippy::too_many_arguments)]
        impl #ident {
            #[doc = #name_doc]
            #vis const NAME: &'static str = #name;

            #[doc = #s_doc]
            #vis fn s(#(#taken),*) -> ::celeriac::protocol::Signature {
                #whole
            }

            #[doc = #si_doc]
            #vis fn si(#(#taken),*) -> ::celeriac::protocol::Signature {
                Self::s(#(#given),*).immutable(true)
            }

            #partial

            #[doc = #signature_doc]
            #vis fn signature(
                args: ::std::vec::Vec<::celeriac::protocol::Value>,
            ) -> ::celeriac::protocol::Signature {
                ::celeriac::task::signature(Self::NAME, args)
            }
        }
    }
}

/// The call that a chain completes: all required parameters but the first, which is the result before it.
fn partial(function: &ItemFn, required: &[&Parameter], parameters: &Parameters) -> TokenStream {
    let first_is_positional = matches!(parameters.list.first().map(|parameter| &parameter.kind), Some(Kind::Required));
    if !first_is_positional {
        return TokenStream::new();
    }
    let vis = &function.vis;
    let body = signature(&required[1..], parameters, 1);
    let taken = required[1..].iter().map(|parameter| taken(parameter));
    let doc = format!(
        "A call of the task `{}` without its first argument, which is the result before it in a chain.",
        function.sig.ident.unraw()
    );
    quote! {
        #[doc = #doc]
        #vis fn partial(#(#taken),*) -> ::celeriac::protocol::Signature {
            #body
        }
    }
}

/// Those before `#[args]` are given by position, those after it by name.
fn signature(required: &[&Parameter], parameters: &Parameters, skipped: usize) -> TokenStream {
    let args = parameters.list.iter().take_while(|parameter| !matches!(parameter.kind, Kind::Args));
    let positional = args.filter(|parameter| matches!(parameter.kind, Kind::Required)).count() - skipped;
    let by_position = required.iter().take(positional).map(|parameter| value(parameter));
    let by_name = required.iter().skip(positional).map(|parameter| {
        let (name, value) = (&parameter.name, value(parameter));
        quote!(.kwarg(#name, #value))
    });
    quote! {
        ::celeriac::task::signature(Self::NAME, ::std::vec![#(#by_position),*])#(#by_name)*
    }
}

fn taken(parameter: &Parameter) -> TokenStream {
    let Parameter { ident, ty, .. } = parameter;
    quote_spanned!(ty.span()=> #ident: impl ::celeriac::task::binding::IntoArgument<#ty>)
}

fn value(parameter: &Parameter) -> TokenStream {
    let Parameter { ident, ty, .. } = parameter;
    quote!(::celeriac::task::binding::IntoArgument::<#ty>::into_argument(#ident))
}

/// The name as a constant, so that it can stand in patterns and in tables.
fn name(ident: &Ident, options: &Options) -> TokenStream {
    if let Some(name) = &options.name {
        return quote!(#name);
    }
    let function = ident.unraw().to_string();
    quote!({
        const NAME: [u8; ::celeriac::task::binding::name_length(::core::module_path!(), #function)] =
            ::celeriac::task::binding::name_of(::core::module_path!(), #function);
        match ::core::str::from_utf8(&NAME) {
            ::core::result::Result::Ok(name) => name,
            ::core::result::Result::Err(_) => #function,
        }
    })
}
