//! The archive of an export: a tar file (POSIX ustar), written by hand, since plain files with short names are all there is of the format here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};

use fte_events::hex;
use sha2::{Digest, Sha256};

use super::ExportError;

const BLOCK: u64 = 512;
/// Longest name in a header.
const NAME_BYTES_MAX: usize = 100;
/// Largest archive.
pub const ARCHIVE_BYTES_MAX: u64 = 1 << 30;

/// An archive that is being written.
pub struct Archive<W> {
    out: W,
    written: u64,
    mtime_s: u64,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W, made_at: jiff::Timestamp) -> Self {
        Self { out, written: 0, mtime_s: u64::try_from(made_at.as_second()).unwrap_or_default() }
    }

    /// A file, from so many bytes.
    pub(super) fn put(&mut self, name: &str, length: u64, content: &mut dyn Read) -> Result<(), ExportError> {
        let padded = length.div_ceil(BLOCK) * BLOCK;
        // With the two blocks at the end.
        if self.written + padded + 3 * BLOCK > ARCHIVE_BYTES_MAX {
            return Err(ExportError::TooLarge);
        }
        let header = header(name, length, self.mtime_s).ok_or_else(|| ExportError::bad(name, "a name too long for the archive"))?;
        let mut write = || {
            self.out.write_all(&header)?;
            if io::copy(&mut (&mut *content).take(length), &mut self.out)? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            io::copy(&mut io::repeat(0).take(padded - length), &mut self.out).map(drop)
        };
        write().map_err(|source| ExportError::Write { path: name.into(), source })?;
        self.written += BLOCK + padded;
        Ok(())
    }

    /// Ends it; what is underneath is flushed, and not yet synced.
    pub fn finish(mut self) -> Result<(W, u64), ExportError> {
        let end = [0; 1024];
        self.out.write_all(&end).and_then(|()| self.out.flush()).map_err(|source| ExportError::Write { path: "archive".into(), source })?;
        Ok((self.out, self.written + 2 * BLOCK))
    }
}

/// The files of one folder of an archive, with their digests.
pub(super) struct Folder<'a, W> {
    archive: &'a mut Archive<W>,
    folder: &'a str,
    pub(super) files: BTreeMap<String, String>,
}

impl<'a, W: Write> Folder<'a, W> {
    pub(super) fn new(archive: &'a mut Archive<W>, folder: &'a str) -> Self {
        Self { archive, folder, files: BTreeMap::new() }
    }

    /// A file. The same large payload twice is one.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        if self.files.contains_key(name) {
            return Ok(());
        }
        self.archive.put(&format!("{}/{name}", self.folder), bytes.len() as u64, &mut &*bytes)?;
        self.files.insert(name.to_owned(), hex(&Sha256::digest(bytes)));
        Ok(())
    }

    /// A file that was too large to be made in memory.
    pub(super) fn write_spooled(&mut self, name: &str, spool: Spool) -> Result<(), ExportError> {
        let (mut file, length, digest) = spool.finish(name)?;
        self.archive.put(&format!("{}/{name}", self.folder), length, &mut file)?;
        self.files.insert(name.to_owned(), digest);
        Ok(())
    }
}

/// A file that grows beside the archive. It has no name, so a crash leaves nothing of it.
pub(super) struct Spool {
    file: io::BufWriter<File>,
    hash: Sha256,
    length: u64,
}

impl Spool {
    pub(super) fn new(directory: &Path) -> Result<Self, ExportError> {
        let file = tempfile::tempfile_in(directory).map_err(|source| ExportError::Write { path: directory.to_owned(), source })?;
        Ok(Self { file: io::BufWriter::new(file), hash: Sha256::new(), length: 0 })
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), ExportError> {
        self.length += text.len() as u64;
        if self.length > ARCHIVE_BYTES_MAX {
            return Err(ExportError::TooLarge);
        }
        self.hash.update(text);
        self.file.write_all(text.as_bytes()).map_err(|source| ExportError::Write { path: "archive".into(), source })
    }

    fn finish(self, name: &str) -> Result<(BufReader<File>, u64, String), ExportError> {
        let digest = hex(&self.hash.finalize());
        let rewound = self.file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut file| {
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        });
        let file = rewound.map_err(|source| ExportError::Write { path: name.into(), source })?;
        Ok((BufReader::new(file), self.length, digest))
    }
}

/// A header of POSIX ustar; none for what does not fit into one.
fn header(name: &str, length: u64, mtime_s: u64) -> Option<[u8; 512]> {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    if name.is_empty() || name.len() > NAME_BYTES_MAX || length > ARCHIVE_BYTES_MAX {
        return None;
    }
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{length:011o}"));
    put(136, &format!("{:011o}", mtime_s.min(0o77_777_777_777)));
    // The sum is made as if its own place were spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

/// Unpacks an archive into a directory that it makes; nothing is written over, and no name leads out of it.
///
/// # Errors
/// It is no archive of an export, or not whole; the disk.
pub fn unpack(archive: impl Read, directory: &Path) -> Result<(), ExportError> {
    let mut archive = BufReader::with_capacity(64 * 1024, archive);
    let no_archive = |what: &str| ExportError::bad("archive", what);
    let cut = |source: io::Error| ExportError::Read { file: "archive".to_owned(), source };
    if directory.exists() {
        return Err(ExportError::Exists { path: directory.to_owned() });
    }
    loop {
        let mut block = [0; 512];
        archive.read_exact(&mut block).map_err(cut)?;
        if block == [0; 512] {
            return Ok(());
        }
        let name =
            block[..NAME_BYTES_MAX].split(|byte| *byte == 0).next().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        let length = std::str::from_utf8(&block[124..135]).ok().and_then(|text| u64::from_str_radix(text, 8).ok()).unwrap_or(u64::MAX);
        let mtime_s = std::str::from_utf8(&block[136..147]).ok().and_then(|text| u64::from_str_radix(text, 8).ok()).unwrap_or_default();
        // Whatever we did not write ourselves is refused: a link, another owner, a damaged header.
        if header(name, length, mtime_s) != Some(block) {
            return Err(no_archive("it is no archive of an export, or damaged"));
        }
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(no_archive("a name in it leads out of it"));
        }
        let path = directory.join(name);
        let mut write = || {
            fs::create_dir_all(path.parent().unwrap_or(directory))?;
            io::copy(&mut archive.by_ref().take(length), &mut File::create_new(&path)?)
        };
        let copied = write().map_err(|source| ExportError::Write { path: path.clone(), source })?;
        let padding = length.div_ceil(BLOCK) * BLOCK - length;
        if copied != length || io::copy(&mut archive.by_ref().take(padding), &mut io::sink()).map_err(cut)? != padding {
            return Err(cut(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Archive::new(Vec::new(), "2026-07-01T00:00:00Z".parse().unwrap());
        for (name, bytes) in files {
            archive.put(name, bytes.len() as u64, &mut &**bytes).unwrap();
        }
        archive.finish().unwrap().0
    }

    #[test]
    fn tar_reads_what_is_written_and_so_does_this() {
        let long = format!("export-0123456789ab/2026/blobs/{}", "a".repeat(64));
        let large = vec![7; 100_000];
        let files: [(&str, &[u8]); 4] = [("a/empty", b""), ("a/one", b"1"), (&long, &large), ("a/block", &[b'x'; 512])];
        let bytes = archive(&files);
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("a.tar"), &bytes).unwrap();
        fs::create_dir(top.path().join("tar")).unwrap();
        let tar =
            Command::new("tar").args(["--extract", "--file", "a.tar", "--directory", "tar"]).current_dir(top.path()).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
        unpack(&*bytes, &top.path().join("own")).unwrap();
        for (name, content) in files {
            for by in ["tar", "own"] {
                assert_eq!(fs::read(top.path().join(by).join(name)).unwrap(), content, "{by} {name}");
            }
        }
    }

    #[test]
    fn what_is_cut_damaged_or_leads_elsewhere_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let mut count = 0;
        let mut refused = |bytes: &[u8]| {
            count += 1;
            unpack(bytes, &top.path().join(count.to_string())).is_err()
        };
        let good = archive(&[("a/one", b"1"), ("a/two", b"22")]);
        assert!(!refused(&good));
        for cut in [0, 100, 512, 513, 1024, good.len() - 1024] {
            assert!(refused(&good[..cut]), "{cut}");
        }
        for at in [0, 101, 130, 150, 156, 300] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(refused(&bad), "{at}");
        }
        for name in ["../out", "/etc/out", "a/../../out", "."] {
            assert!(refused(&archive(&[(name, b"1")])), "{name}");
        }
        assert!(!top.path().join("out").exists());
    }
}
