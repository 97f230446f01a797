//! [`Claim`]: the right to send one message, kept where the broker is.

/// The right to send one message: a field of a hash at a Redis. Whoever takes it away has sent the message, and nobody else
/// does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The hash, its name as it is at the server.
    pub hash: String,
    /// The field, which no other claim has.
    pub field: String,
}
