//! Types that no message brings, and that no result holds.

struct Opaque;

#[celeriac::task]
async fn takes_opaque(value: Opaque) {}

#[celeriac::task]
async fn returns_opaque() -> Opaque {
    Opaque
}

#[celeriac::task]
async fn returns_opaque_result() -> Result<Opaque, celeriac::Interrupt> {
    Ok(Opaque)
}

#[celeriac::task]
async fn fails_with_opaque() -> Result<(), Opaque> {
    Err(Opaque)
}

#[celeriac::task]
async fn not_send() {
    let local = std::rc::Rc::new(1);
    std::future::ready(()).await;
    drop(local);
}

fn main() {}
