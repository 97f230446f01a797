//! The `#[task]` attribute of the `celeriac` crate; its documentation is there.
//!
//! The macro writes little: the decisions are functions of `celeriac::task::binding`.

mod calls;
mod duration;
mod expand;
mod option_table;
mod options;
mod parameters;

use proc_macro::TokenStream;

/// Makes a task of a function. Documented as `celeriac::task`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::task(options.into(), function.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}
