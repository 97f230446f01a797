//! [`Claims`] and [`Claimant`]: who may have a call that was given to a child and has not begun.
//!
//! Calls wait in a child behind others, so that it need not ask for each. Until one begins the parent may give it to another
//! child after all, or to none. Calls are numbered in the order in which they are given, and both sides share a number: of
//! the first call that nobody has. Whoever makes it one more has that call: the child right before it begins the call, the
//! parent when it wants the call back. It is in memory that both have mapped, so that a claim costs no more than that.

mod page;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use self::page::Page;

/// The parent's side: one for each child.
#[derive(Debug)]
pub struct Claims {
    /// The number of the first call that nobody has.
    page: Page,
    /// The number of the call that is given next.
    next: u64,
}

impl Claims {
    /// With the child's side.
    ///
    /// # Errors
    /// There is no memory for it, or no file.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (page, theirs) = Page::new()?;
        Ok((Claims { page, next: 0 }, theirs))
    }

    /// The number of a call that is about to be given.
    pub fn offer(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Takes back the first call that has not begun.
    pub fn take_back(&self) -> Option<u64> {
        let taken = self.page.number();
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |first| (first < self.next).then_some(first + 1)).ok()
    }
}

/// The child's side.
#[derive(Debug)]
pub struct Claimant {
    page: Page,
    /// The number of the next call that comes.
    next: u64,
}

impl Claimant {
    /// Of the file that came with the line.
    ///
    /// # Errors
    /// It is another file, or cannot be mapped.
    pub fn new(file: OwnedFd) -> io::Result<Self> {
        Ok(Claimant { page: Page::of(file)?, next: 0 })
    }

    /// Whether the next call may begin: nobody has taken it back, and from now on nobody can.
    pub fn may_begin(&mut self) -> bool {
        let number = self.next;
        self.next += 1;
        // All before it are taken: each was asked for here when it came.
        let claimed = self.page.number().compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (Claims, Claimant) {
        let (claims, theirs) = Claims::new().unwrap();
        (claims, Claimant::new(theirs).unwrap())
    }

    #[test]
    fn a_call_belongs_to_who_was_first() {
        let (mut claims, mut child) = both();
        assert_eq!([claims.offer(), claims.offer(), claims.offer()], [0, 1, 2]);
        assert!(child.may_begin());
        assert_eq!(claims.take_back(), Some(1));
        assert!(!child.may_begin());
        assert!(child.may_begin());
        assert_eq!(claims.take_back(), None, "nothing is left");
    }

    #[test]
    fn a_claim_counts_for_no_other_call() {
        let (mut claims, mut child) = both();
        for _ in 0..1000 {
            let first = claims.offer();
            assert_eq!(claims.take_back(), Some(first));
            claims.offer();
            assert!(!child.may_begin());
            assert!(child.may_begin());
        }
        assert_eq!(claims.take_back(), None, "nothing was offered");
    }

    #[test]
    fn of_many_claims_each_is_heeded_once() {
        let (mut claims, mut child) = both();
        let mut taken = 0;
        let begun = std::thread::scope(|scope| {
            let (seen, given) = std::sync::mpsc::channel::<()>();
            let begun = scope.spawn(move || (given.iter()).filter(|()| child.may_begin()).count());
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

    #[test]
    fn what_is_no_file_of_claims_is_not_mapped() {
        let (empty, _) = std::io::pipe().unwrap();
        assert!(Claimant::new(empty.into()).is_err());
        let (page, file) = Page::new().unwrap();
        std::fs::File::from(file.try_clone().unwrap()).set_len(4).unwrap();
        assert!(Claimant::new(file).is_err());
        drop(page);
    }
}
