//! Items that cannot be tasks.

struct Shop;

impl Shop {
    #[celeriac::task]
    async fn method(&self) {}
}

#[celeriac::task]
async fn generic<T>(value: T) {}

#[celeriac::task]
async fn opaque(value: impl Send) {}

#[celeriac::task]
struct NotAFunction;

fn main() {}
