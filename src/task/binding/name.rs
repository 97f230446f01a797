//! The name of a task that is given none, worked out by the compiler.

/// The name of the function `function` in `module`, as Celery would call it (celery/utils/imports.py `gen_task_name`):
/// `add` in `shop::tasks` is `shop.tasks.add`. `N` is [`name_length`]; the bytes are UTF-8.
pub const fn name_of<const N: usize>(module: &str, function: &str) -> [u8; N] {
    let (module, function) = (module.as_bytes(), function.as_bytes());
    let mut name = [b'.'; N];
    let (mut from, mut to) = (0, 0);
    while from < module.len() && to < N {
        if module[from] == b':' {
            // The second colon is left out.
            from += 1;
        } else {
            name[to] = module[from];
        }
        from += 1;
        to += 1;
    }
    to += 1;
    let mut from = 0;
    while from < function.len() && to < N {
        name[to] = function[from];
        from += 1;
        to += 1;
    }
    name
}

/// How many bytes that name has.
pub const fn name_length(module: &str, function: &str) -> usize {
    let module = module.as_bytes();
    let (mut at, mut colons) = (0, 0);
    while at < module.len() {
        if module[at] == b':' {
            colons += 1;
        }
        at += 1;
    }
    module.len() - colons / 2 + 1 + function.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_become_dots() {
        const DEEP: [u8; name_length("shop::täsks::new", "add")] = name_of("shop::täsks::new", "add");
        assert_eq!(std::str::from_utf8(&DEEP), Ok("shop.täsks.new.add"));
        const FLAT: [u8; name_length("shop", "add")] = name_of("shop", "add");
        assert_eq!(&FLAT, b"shop.add");
    }
}
