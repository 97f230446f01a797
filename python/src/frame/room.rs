//! How much room buffers keep. One large frame costs its room once, and not for as long as the process lives that it came to.

use bytes::{Buf, BytesMut};

/// How much is read at a time, and kept for that, in bytes.
pub const ROOM: usize = 64 << 10;
/// What has more room, in bytes, gives it back once it is not needed.
const MOST: usize = 16 * ROOM;

/// Gives back what was needed for more than is there now.
pub fn give_back(buffer: &mut Vec<u8>) {
    if buffer.capacity() > MOST && buffer.len() <= ROOM {
        buffer.shrink_to(ROOM);
    }
}

/// Drops a frame of that length from the front of what was read, and with a large one its room.
pub fn pass(read: &mut BytesMut, length: usize) {
    if length > MOST {
        *read = BytesMut::from(&read[length..]);
    } else {
        read.advance(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 64 << 20;

    #[test]
    fn the_room_of_a_large_frame_is_given_back() {
        let mut buffer = vec![7; LARGE];
        give_back(&mut buffer);
        assert!(buffer.capacity() >= LARGE, "it is needed");
        buffer.truncate(3);
        give_back(&mut buffer);
        assert_eq!((buffer.as_slice(), buffer.capacity() <= MOST), ([7; 3].as_slice(), true));
    }

    #[test]
    fn the_room_of_a_large_frame_that_has_passed_is_given_back() {
        let mut read = BytesMut::with_capacity(ROOM);
        read.extend_from_slice(&vec![7; LARGE]);
        read.extend_from_slice(b"next");
        pass(&mut read, LARGE);
        read.reserve(ROOM);
        assert_eq!((&read[..], read.capacity() <= MOST), (b"next".as_slice(), true));
    }

    #[test]
    fn what_is_small_keeps_its_room() {
        let mut buffer = Vec::with_capacity(MOST);
        give_back(&mut buffer);
        assert_eq!(buffer.capacity(), MOST);
        let mut read = BytesMut::with_capacity(ROOM);
        read.extend_from_slice(b"onetwo");
        let at = read.as_ptr();
        pass(&mut read, 3);
        assert_eq!((&read[..], read.as_ptr()), (b"two".as_slice(), at.wrapping_add(3)));
    }
}
