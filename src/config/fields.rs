//! The macro that turns a list of settings into a struct, its defaults and its lookup by name.

/// Declares a settings struct: each field has a type, a default and the [`Parser`](super::parser::Parser) of its values.
macro_rules! settings {
    (
        $(#[$outer:meta])*
        pub struct $name:ident { $( $(#[$doc:meta])* $field:ident: $type:ty = $default:expr, $parser:expr; )* }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $( $(#[$doc])* pub $field: $type, )* }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )* }
            }
        }

        impl $crate::config::parser::Settings for $name {
            const NAMES: &'static [&'static str] = &[$( stringify!($field), )*];

            fn kind(name: &str) -> Option<$crate::config::parser::Kind> {
                match name {
                    $( stringify!($field) => Some($parser.kind), )*
                    _ => None,
                }
            }

            fn assign(&mut self, name: &str, value: &toml::Value) -> Result<bool, $crate::config::parser::Mismatch> {
                match name {
                    $( stringify!($field) => self.$field = $parser.parse(value)?, )*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn shown(&self, name: &str) -> Option<toml::Value> {
                match name {
                    $( stringify!($field) => $crate::config::shown::Show::show(&self.$field), )*
                    _ => None,
                }
            }

            fn is_default(&self, name: &str) -> bool {
                match name {
                    $( stringify!($field) => self.$field == $default, )*
                    _ => true,
                }
            }
        }
    };
}

pub(super) use settings;
