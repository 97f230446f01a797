//! [`Nest`]: the nursery's end of its line, and [`Chick`]: a child's.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use celeriac_python::claims::Claimant;
use celeriac_python::frame::{self, FromChild, Plain, Reader, ToChild, Writer};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};

const SECONDS: Duration = Duration::from_secs(60);
/// The length of what the nursery is asked.
const ASK: usize = 21;

/// The nursery's end of its line.
pub(crate) struct Nest(UnixStream);

/// A child's end of its line.
pub(crate) struct Chick {
    pub(crate) index: u32,
    pid: u32,
    line: UnixStream,
    claims: Claimant,
}

impl Nest {
    /// A nursery, and the pool's end of its line.
    pub(crate) fn new() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_read_timeout(Some(SECONDS)).expect("a timeout");
        (Nest(ours), theirs)
    }

    /// Forks, as is asked for now, a child of that process id.
    pub(crate) fn fork(&mut self, pid: u32) -> Chick {
        self.fork_in_place(pid).0
    }

    /// The same, and the place in the pool that is asked for it.
    pub(crate) fn fork_in_place(&mut self, pid: u32) -> (Chick, u64) {
        let (kind, index, place, descriptors) = self.asked();
        assert_eq!(kind, b'f');
        let [line, claims] = <[OwnedFd; 2]>::try_from(descriptors).expect("a line and claims come with it");
        let line = UnixStream::from(line);
        line.set_read_timeout(Some(SECONDS)).expect("a timeout");
        let mut frame = Writer::new(b'f');
        frame.number(index);
        frame.number(pid.into());
        self.0.write_all(&frame.end()).expect("the pool reads");
        let index = u32::try_from(index).expect("a small number");
        (Chick { index, pid, line, claims: Claimant::new(claims).expect("its file") }, place)
    }

    /// The signal that is asked for now, and for whom. It comes at once.
    pub(crate) fn signal(&mut self) -> (u32, u64) {
        let (index, signal) = self.late_signal();
        self.delivered(index);
        (index, signal)
    }

    /// The same, but for that it is still to come.
    pub(crate) fn late_signal(&mut self) -> (u32, u64) {
        let (kind, index, signal, _) = self.asked();
        assert_eq!(kind, b's');
        (u32::try_from(index).expect("a small number"), signal)
    }

    /// Tells that a signal has come to a child.
    pub(crate) fn delivered(&mut self, index: u32) {
        let mut frame = Writer::new(b's');
        frame.number(index.into());
        self.0.write_all(&frame.end()).expect("the pool reads");
    }

    /// Whether nothing is asked for so long, but for whether the nursery is there.
    pub(crate) fn is_silent(&mut self, wait: Duration) -> bool {
        self.0.set_read_timeout(Some(wait)).expect("a timeout");
        let is_silent = loop {
            if recv(&self.0, [0_u8].as_mut_slice(), RecvFlags::PEEK).is_err() {
                break true;
            }
            match self.read() {
                (b'p', ..) => self.pong(),
                _ => break false,
            }
        };
        self.0.set_read_timeout(Some(SECONDS)).expect("a timeout");
        is_silent
    }

    /// Whether nothing more will be asked.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.asked().0 == b'c'
    }

    /// Whether the pool has hung up.
    pub(crate) fn is_left(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok()
    }

    /// Tells how a child has ended.
    pub(crate) fn exited(&mut self, index: u32, how: &str) {
        let mut frame = Writer::new(b'x');
        frame.number(index.into());
        frame.text(how);
        self.0.write_all(&frame.end()).expect("the pool reads");
    }

    /// What is asked next, but for whether the nursery is there, which it is.
    fn asked(&mut self) -> (u8, u64, u64, Vec<OwnedFd>) {
        loop {
            match self.read() {
                (b'p', ..) => self.pong(),
                asked => return asked,
            }
        }
    }

    fn pong(&mut self) {
        let mut frame = Writer::new(b'p');
        frame.number(0);
        self.0.write_all(&frame.end()).expect("the pool reads");
    }

    fn read(&mut self) -> (u8, u64, u64, Vec<OwnedFd>) {
        let mut bytes = [0; ASK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::empty());
        assert_eq!(received.expect("the pool asks in time").bytes, ASK);
        let descriptors = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = descriptors.flatten().collect();
        let (kind, mut fields) = Reader::new(&bytes[4..]).expect("a frame");
        (kind, fields.number().expect("an index"), fields.number().expect("a number"), descriptors)
    }
}

impl Chick {
    /// The id of the next call; `None` when there will be no more.
    pub(crate) fn job(&mut self) -> Option<String> {
        let frame = self.frame();
        match frame::read_to_child(&frame, &Plain).expect("a frame") {
            ToChild::Job { id, .. } => Some(id.to_owned()),
            ToChild::Quit => None,
            ToChild::Stored(..) => panic!("no call"),
        }
    }

    /// Whether it is told nothing for so long.
    pub(crate) fn is_silent(&self, wait: Duration) -> bool {
        self.line.set_read_timeout(Some(wait)).expect("a timeout");
        let is_silent = recv(&self.line, [0_u8].as_mut_slice(), RecvFlags::PEEK).is_err();
        self.line.set_read_timeout(Some(SECONDS)).expect("a timeout");
        is_silent
    }

    /// The answer to what it wants to be stored.
    pub(crate) fn stored(&mut self) -> Option<(u64, bool)> {
        frame::as_stored(&self.frame())
    }

    /// It can take calls.
    pub(crate) fn ready(&mut self) {
        self.say(&[FromChild::Ready { pid: self.pid }]);
    }

    /// Whether the next of the calls that were given to it, each of which it sees once, may begin.
    pub(crate) fn claims(&mut self) -> bool {
        self.claims.may_begin()
    }

    /// Says something; what begins is claimed before.
    pub(crate) fn say(&mut self, frames: &[FromChild]) {
        for _ in frames.iter().filter(|frame| matches!(frame, FromChild::Accepted)) {
            assert!(self.claims(), "it was taken back");
        }
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame::write_from_child(frame, &mut out));
        self.say_bytes(&out);
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.line.write_all(bytes).expect("the pool reads");
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.line.read_exact(&mut length).expect("something comes in time");
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.line.read_exact(&mut frame).expect("something comes in time");
        frame
    }
}
