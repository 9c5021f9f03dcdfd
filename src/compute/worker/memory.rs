//! Memory that the service and a compute worker share: a memfd, read and written by system calls, not mapped.
//!
//! Guarantees: whatever the other side does to it (shrinks it, fills it with anything) causes an error here, not a
//! signal: with a mapping, a shrunken file would be a bus error. Must not: hold anything between jobs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

/// Values converted at a time.
const CHUNK: usize = 8192;

/// The shared file.
pub struct SharedMemory(OwnedFd);

/// A position in it that advances with every write or read.
pub struct Cursor<'a> {
    memory: &'a SharedMemory,
    at: u64,
}

impl SharedMemory {
    /// Creates an empty one.
    pub fn create() -> io::Result<Self> {
        Ok(Self(memfd_create("fullrank-compute", MemfdFlags::CLOEXEC)?))
    }

    /// From a file that was passed in.
    pub fn from_fd(file: OwnedFd) -> Self {
        Self(file)
    }

    /// The file, to pass on.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Releases its pages.
    pub fn clear(&self) -> io::Result<()> {
        Ok(ftruncate(&self.0, 0)?)
    }

    /// A cursor at its first byte.
    pub fn start(&self) -> Cursor<'_> {
        Cursor { memory: self, at: 0 }
    }
}

impl Cursor<'_> {
    /// Writes bytes.
    pub fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = retried(|| pwrite(&self.memory.0, bytes, self.at))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.at += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Writes numbers.
    pub fn put_numbers(&mut self, values: &[f64]) -> io::Result<()> {
        let mut bytes = vec![0; 8 * CHUNK.min(values.len())];
        for chunk in values.chunks(CHUNK) {
            let bytes = &mut bytes[..8 * chunk.len()];
            for (to, value) in bytes.as_chunks_mut().0.iter_mut().zip(chunk) {
                *to = value.to_le_bytes();
            }
            self.put(bytes)?;
        }
        Ok(())
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` if fewer are left.
    pub fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads `count` numbers.
    pub fn take_numbers(&mut self, count: usize) -> io::Result<Vec<f64>> {
        let mut values = vec![0.0; count];
        let mut bytes = vec![0; 8 * CHUNK.min(count)];
        for chunk in values.chunks_mut(CHUNK) {
            let bytes = &mut bytes[..8 * chunk.len()];
            self.fill(bytes)?;
            for (value, from) in chunk.iter_mut().zip(bytes.as_chunks().0) {
                *value = f64::from_le_bytes(*from);
            }
        }
        Ok(values)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let read = retried(|| pread(&self.memory.0, &mut *bytes, self.at))?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += read as u64;
            bytes = &mut bytes[read..];
        }
        Ok(())
    }
}

fn retried(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let memory = SharedMemory::create().unwrap();
        let numbers: Vec<f64> = (0..CHUNK + 3).map(|i| i as f64 / 7.0).collect();
        let mut cursor = memory.start();
        cursor.put(b"abc").unwrap();
        cursor.put_numbers(&numbers).unwrap();
        let mut cursor = memory.start();
        assert_eq!(cursor.take(3).unwrap(), b"abc");
        assert_eq!(cursor.take_numbers(numbers.len()).unwrap(), numbers);
        assert_eq!(cursor.take(1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        memory.clear().unwrap();
        assert!(memory.start().take(1).is_err());
    }
}
