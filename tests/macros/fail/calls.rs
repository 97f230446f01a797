//! Calls with arguments that the task does not take.

#[celeriac::task]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

fn main() {
    add::s(1);
    add::s(1, "two");
    add::si(1, 2, 3);
    add::partial();
}
