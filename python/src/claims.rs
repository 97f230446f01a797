//! [`Claims`] and [`Claimant`]: who may have a call that was given to a child and has not begun.
//!
//! Calls wait in a child behind others, so that it need not ask for each. Until one begins the parent may give it to another
//! child after all, or to none: so for each there is a token, a number in a pipe, and whoever has read that has the call.
//! The child reads it right before it begins the call, the parent when it wants the call back. The pipe hands out each
//! number once and whole, and in the order in which the calls were given.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::ioctl_fionbio;

/// The parent's side: one for each child.
#[derive(Debug)]
pub struct Claims {
    writer: PipeWriter,
    reader: PipeReader,
    /// The token of the call that is given next.
    next: u64,
}

impl Claims {
    /// With the child's side.
    ///
    /// # Errors
    /// There is no pipe for it.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        // Both ask whether there is a token, and wait for none.
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        let theirs = reader.as_fd().try_clone_to_owned()?;
        Ok((Claims { writer, reader, next: 0 }, theirs))
    }

    /// The token of a call that is about to be given: it is there before the call is.
    pub fn offer(&mut self) -> u64 {
        let token = self.next;
        self.next = token.wrapping_add(1);
        // The few calls of a child fill no pipe, and nobody else can close it.
        let _ = self.writer.write(&token.to_le_bytes());
        token
    }

    /// Takes back the first call that has not begun.
    pub fn take_back(&self) -> Option<u64> {
        read(&self.reader).ok().flatten()
    }
}

/// The child's side.
#[derive(Debug)]
pub struct Claimant {
    reader: PipeReader,
    /// The number of the next call that comes.
    next: u64,
    /// What was read and belongs to a call that comes later: those before it were taken back.
    held: Option<u64>,
}

impl Claimant {
    /// Of the pipe that came with the line.
    pub fn new(reader: OwnedFd) -> Self {
        Claimant { reader: reader.into(), next: 0, held: None }
    }

    /// Whether the next call may begin: nobody has taken it back, and from now on nobody can.
    ///
    /// # Errors
    /// The pipe is gone.
    pub fn may_begin(&mut self) -> io::Result<bool> {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let token = match self.held.take() {
            Some(token) => Some(token),
            None => read(&self.reader)?,
        };
        self.held = token.filter(|token| *token != number);
        Ok(token == Some(number))
    }
}

fn read(mut pipe: &PipeReader) -> io::Result<Option<u64>> {
    let mut token = [0; 8];
    loop {
        match pipe.read(&mut token) {
            Ok(8) => return Ok(Some(u64::from_le_bytes(token))),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (Claims, Claimant) {
        let (claims, theirs) = Claims::new().unwrap();
        (claims, Claimant::new(theirs))
    }

    #[test]
    fn a_call_belongs_to_who_was_first() {
        let (mut claims, mut child) = both();
        assert_eq!([claims.offer(), claims.offer(), claims.offer()], [0, 1, 2]);
        assert!(child.may_begin().unwrap());
        assert_eq!(claims.take_back(), Some(1));
        // It sees the call that was taken back, and then the one after it, which is its own by then.
        assert!(!child.may_begin().unwrap());
        assert_eq!(claims.take_back(), None);
        assert!(child.may_begin().unwrap());
    }

    #[test]
    fn a_token_counts_for_no_other_call() {
        let (mut claims, mut child) = both();
        for _ in 0..1000 {
            let first = claims.offer();
            assert_eq!(claims.take_back(), Some(first));
            claims.offer();
            assert!(!child.may_begin().unwrap());
            assert!(child.may_begin().unwrap());
        }
        assert!(!child.may_begin().unwrap(), "nothing was offered");
    }

    #[test]
    fn of_many_claims_each_is_heeded_once() {
        let (mut claims, mut child) = both();
        let mut taken = 0;
        let begun = std::thread::scope(|scope| {
            let (seen, given) = std::sync::mpsc::channel::<()>();
            let begun = scope.spawn(move || (given.iter()).filter(|()| child.may_begin().unwrap()).count());
            for number in 0..20_000 {
                claims.offer();
                seen.send(()).unwrap();
                taken += usize::from(number % 3 == 0 && claims.take_back().is_some());
            }
            drop(seen);
            begun.join().unwrap()
        });
        assert!(taken > 0 && begun > 0, "{taken} {begun}");
        assert_eq!(taken + begun, 20_000);
    }
}
