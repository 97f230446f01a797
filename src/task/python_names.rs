//! The name of a Python class for the name of a Rust error type.

/// Builtin exceptions that can be made from one text: a Rust type of such a name is that exception to Python.
const BUILTINS: &[&str] = &[
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BrokenPipeError",
    "BufferError",
    "ConnectionAbortedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "EOFError",
    "FileExistsError",
    "FileNotFoundError",
    "FloatingPointError",
    "ImportError",
    "IndexError",
    "InterruptedError",
    "IsADirectoryError",
    "KeyError",
    "LookupError",
    "NameError",
    "NotADirectoryError",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "PermissionError",
    "RuntimeError",
    "TimeoutError",
    "TypeError",
    "UnicodeError",
    "ValueError",
    "ZeroDivisionError",
];

/// Types that say nothing of what went wrong.
const NAMELESS: &[&str] = &["str", "String", "Box", "Cow"];

/// The class, and the module that clients look it up in, for what [`std::any::type_name`] says of an error's type.
pub(super) fn class_of(type_name: &str) -> (String, &'static str) {
    let path = type_name.split('<').next().unwrap_or_default().trim_start_matches('&');
    let class = path.rsplit("::").next().unwrap_or_default();
    let library = path.split("::").next().unwrap_or_default();
    match class {
        "Error" | "Report" if matches!(library, "anyhow" | "eyre") => builtin("RuntimeError"),
        _ if class.is_empty() || NAMELESS.contains(&class) => builtin("RuntimeError"),
        _ if BUILTINS.contains(&class) => builtin(class),
        "Error" => (format!("{}Error", camel_case(library)), "celery.exceptions"),
        _ => (class.to_owned(), "celery.exceptions"),
    }
}

fn builtin(class: &str) -> (String, &'static str) {
    (class.to_owned(), "builtins")
}

/// `serde_json` is `SerdeJson`.
fn camel_case(name: &str) -> String {
    let capitalise = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>())
    };
    name.split('_').filter_map(capitalise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_class_for_every_type() {
        let rows = [
            ("payments::errors::PaymentError", "PaymentError", "celery.exceptions"),
            ("payments::KeyError", "KeyError", "builtins"),
            ("serde_json::error::Error", "SerdeJsonError", "celery.exceptions"),
            ("tokio::sync::mpsc::error::SendError<alloc::string::String>", "SendError", "celery.exceptions"),
            ("alloc::boxed::Box<dyn core::error::Error + Send>", "RuntimeError", "builtins"),
            ("alloc::string::String", "RuntimeError", "builtins"),
            ("&str", "RuntimeError", "builtins"),
            ("anyhow::Error", "RuntimeError", "builtins"),
            ("eyre::Report", "RuntimeError", "builtins"),
            ("", "RuntimeError", "builtins"),
        ];
        for (type_name, class, module) in rows {
            assert_eq!(class_of(type_name), (class.to_owned(), module), "{type_name}");
        }
    }
}
