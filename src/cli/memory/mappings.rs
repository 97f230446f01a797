//! [`unchanged`]: which parts of this process's memory are a file's, and may be forgotten.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Range;

/// A part of this process's memory whose pages are those of a file, unchanged, and cannot be written to: the kernel finds
/// the same bytes in the file again. [`unchanged`] alone makes these.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unchanged(Range<usize>);

impl Unchanged {
    pub(super) fn range(&self) -> Range<usize> {
        self.0.clone()
    }
}

/// The code and the constants of the file that this code came from: the program, or a library that a program has loaded.
/// It was loaded whole before this could run; other libraries may be loaded meanwhile, and written to. Nothing on systems
/// that do not tell of mappings as Linux does.
pub(super) fn unchanged() -> Vec<Unchanged> {
    let here = unchanged as fn() -> Vec<Unchanged>;
    match fs::File::open("/proc/self/smaps") {
        Ok(smaps) => of_file_at(here as usize, BufReader::new(smaps).lines().map_while(Result::ok)),
        Err(_) => Vec::new(),
    }
}

/// The mappings of the file that is mapped at the address `here` that cannot be written to and have no page of their own,
/// in memory or in swap. `smaps` tells of all mappings as proc_pid_smaps(5) says.
fn of_file_at(here: usize, smaps: impl Iterator<Item = String>) -> Vec<Unchanged> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps {
        match (Mapping::begin(&line), mappings.last_mut()) {
            (Some(mapping), _) => mappings.push(mapping),
            (None, Some(mapping)) => mapping.read(&line),
            (None, None) => {}
        }
    }
    let found = mappings.iter().find(|mapping| mapping.range.contains(&here));
    let Some(file) = found.and_then(|mapping| mapping.file.clone()) else { return Vec::new() };
    let of_file = mappings.into_iter().filter(|mapping| mapping.file.as_ref() == Some(&file));
    of_file.filter(Mapping::is_unchanged).map(|mapping| Unchanged(mapping.range)).collect()
}

/// One mapping of a process, as far as it matters here.
struct Mapping {
    range: Range<usize>,
    /// Private, and to be read or run: nobody can write to it.
    is_fixed: bool,
    /// The device and the inode; `None`: no file.
    file: Option<(String, u64)>,
    /// How many kilobytes of it are this process's own, in memory and in swap; `None`: that was not told.
    own: [Option<u64>; 2],
}

impl Mapping {
    /// Reads `55f0c0de1000-55f0c0de3000 r-xp 00001000 fe:00 131   /usr/bin/worker`.
    fn begin(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let range = address(start)?..address(end)?;
        let (permissions, _offset, device) = (words.next()?, words.next()?, words.next()?);
        let inode: u64 = words.next()?.parse().ok()?;
        Some(Mapping {
            range,
            is_fixed: matches!(permissions, "r--p" | "r-xp"),
            file: (inode != 0).then(|| (device.to_owned(), inode)),
            own: [None; 2],
        })
    }

    /// Reads `Anonymous:   12 kB`.
    fn read(&mut self, line: &str) {
        let Some((name, value)) = line.split_once(':') else { return };
        let which = match name {
            "Anonymous" => 0,
            "Swap" => 1,
            _ => return,
        };
        self.own[which] = value.trim().strip_suffix(" kB").and_then(|kilobytes| kilobytes.parse().ok());
    }

    fn is_unchanged(&self) -> bool {
        self.is_fixed && self.own == [Some(0); 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "fe:00 131                  /usr/bin/a worker";
    const CLEAN: &str = "Anonymous:             0 kB\nSwap:                  0 kB\n";

    /// A page at `0x1000 * number`, and what is told of it.
    fn mapping(number: usize, permissions: &str, file: &str, own: &str) -> String {
        let end = number + 1;
        format!("{number}000-{end}000 {permissions} 00000000 {file}\nRss:    4 kB\n{own}VmFlags: rd ex\n")
    }

    /// Where those that are found begin and end.
    fn found(smaps: &str, here: usize) -> Vec<(usize, usize)> {
        let found = of_file_at(here, smaps.lines().map(str::to_owned));
        found.iter().map(Unchanged::range).map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn what_may_have_been_written_to_is_kept() {
        let rows = [
            ("r-xp", WORKER, CLEAN, true),
            ("r--p", WORKER, CLEAN, true),
            ("rw-p", WORKER, CLEAN, false),
            ("rwxp", WORKER, CLEAN, false),
            ("r--s", WORKER, CLEAN, false),
            ("---p", WORKER, CLEAN, false),
            // Written to by the dynamic loader, and then protected; or by a debugger.
            ("r--p", WORKER, "Anonymous:           344 kB\nSwap:                  0 kB\n", false),
            ("r-xp", WORKER, "Anonymous:             4 kB\nSwap:                  0 kB\n", false),
            ("r--p", WORKER, "Anonymous:             0 kB\nSwap:                  4 kB\n", false),
            // A kernel that does not say so.
            ("r--p", WORKER, "Anonymous:             0 kB\n", false),
            ("r--p", WORKER, "Swap:                  0 kB\n", false),
            ("r--p", WORKER, "Anonymous:             0\nSwap:                  0\n", false),
            ("r-xp", WORKER, "", false),
            // Other files, which somebody may be loading, and no file.
            ("r-xp", "fe:00 132    /usr/lib/libc.so.6", CLEAN, false),
            ("r-xp", "fe:01 131    /usr/bin/a worker", CLEAN, false),
            ("r-xp", "00:00 0      [vdso]", CLEAN, false),
            ("r--p", "00:00 0", CLEAN, false),
        ];
        for (permissions, file, own, is_found) in rows {
            let smaps = mapping(1, permissions, file, own) + &mapping(2, "r-xp", WORKER, "");
            let expected: &[(usize, usize)] = if is_found { &[(0x1000, 0x2000)] } else { &[] };
            assert_eq!(found(&smaps, 0x2fff), expected, "{permissions} {file} {own}");
        }
    }

    #[test]
    fn where_no_file_is_nothing_is_found() {
        let smaps = mapping(1, "r-xp", WORKER, CLEAN) + &mapping(2, "r-xp", "00:00 0", CLEAN);
        for here in [0x0fff, 0x2000, 0x3000] {
            assert!(found(&smaps, here).is_empty(), "{here:x}");
        }
        assert_eq!(found(&smaps, 0x1000), [(0x1000, 0x2000)]);
        assert!(found("Rss: 4 kB\nnonsense\n\n1-2\n", 1).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_programs_own_code_is_found_and_what_it_writes_to_is_not() {
        static WRITTEN: std::sync::Mutex<usize> = std::sync::Mutex::new(0);
        *WRITTEN.lock().unwrap() = 1;
        let found = unchanged();
        let holds = |address: usize| found.iter().any(|part| part.range().contains(&address));
        assert!(holds(Mapping::begin as fn(&str) -> Option<Mapping> as usize), "code");
        assert!(!holds(&raw const WRITTEN as usize), "a variable");
        // Written to by the dynamic loader: the address in it is another in each process.
        static RELOCATED: &[&str] = &["a", "b"];
        assert!(!holds(RELOCATED.as_ptr() as usize), "a relocated constant");
    }
}
