//! A file, or standard input, uncompressed: gzip and zstd are told by their first bytes, also in several members or
//! frames one behind the other.

use std::fs::File;
use std::io::{self, Chain, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that tell the format.
const MAGIC_BYTES: usize = 6;

/// A raw file that counts what is read of it.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(out)?;
        self.read.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
    /// One that is not read: its name, and the command that reads it.
    Other(&'static str, &'static str),
}

/// Opens a file; `-` is standard input. Each byte that is read of it is counted in `read`.
///
/// # Errors
///
/// If it can't be opened or read, or has a compression that is not read here.
pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> io::Result<Box<dyn Read + Send>> {
    let read = read.clone();
    if is_stdin(path) {
        return uncompressed(Counted { input: io::stdin(), read });
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    uncompressed(Counted { input: file, read })
}

/// True for `-`.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn uncompressed(mut input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    input.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut first)?;
    let format = format(&first);
    let input = Cursor::new(first).chain(input);
    match format {
        Format::Plain => Ok(Box::new(input)),
        Format::Gzip => gzip(input),
        Format::Zstd => Ok(Box::new(zstd::stream::read::Decoder::new(input)?)),
        Format::Other(name, command) => Err(io::Error::other(format!(
            "it is {name}, which is not read here; `{command} FILE | sluicegate send -` sends it"
        ))),
    }
}

#[cfg(feature = "codings")]
fn gzip<R: Read + Send + 'static>(input: Chain<Cursor<Vec<u8>>, R>) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, input))))
}

#[cfg(not(feature = "codings"))]
fn gzip<R: Read + Send + 'static>(_: Chain<Cursor<Vec<u8>>, R>) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::other(
        "it is gzip, which is not in this build; a build with the feature codings has it, and `gzip -dc FILE | \
         sluicegate send -` sends it",
    ))
}

/// RFC 1952, section 2.3.1, and RFC 8878, sections 3.1.1 and 3.1.2.
fn format(first: &[u8]) -> Format {
    match first {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Format::Other("xz", "xz -dc"),
        [b'B', b'Z', b'h', ..] => Format::Other("bzip2", "bzip2 -dc"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Format::Other("lz4", "lz4 -dc"),
        [b'P', b'K', 3, 4, ..] => Format::Other("zip", "unzip -p"),
        [0xff, 0xfe, ..] => Format::Other("UTF-16", "iconv -f UTF-16LE -t UTF-8"),
        [0xfe, 0xff, ..] => Format::Other("UTF-16", "iconv -f UTF-16BE -t UTF-8"),
        [b'P', b'A', b'R', b'1', ..] => {
            Format::Other("Parquet", "clickhouse local -q 'SELECT * FROM table FORMAT JSONEachRow' --file")
        }
        _ => Format::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        uncompressed(Cursor::new(bytes.to_vec()))?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[cfg(feature = "codings")]
    fn gzipped(text: &str) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(text: &str) -> Vec<u8> {
        zstd::stream::encode_all(text.as_bytes(), 3).unwrap()
    }

    #[test]
    fn what_is_not_compressed_is_read_as_it_is() {
        for text in ["", "a", "{}\n", "{\"event\":\"a\"}\n{}\n"] {
            assert_eq!(read(text.as_bytes()).unwrap(), text);
        }
    }

    #[cfg(feature = "codings")]
    #[test]
    fn several_members_of_gzip_are_one_file_and_a_cut_one_is_an_error() {
        let both = [gzipped("a\n"), gzipped(""), gzipped("b\n")].concat();
        assert_eq!(read(&both).unwrap(), "a\nb\n");
        let one = gzipped("a\n");
        for length in 2..one.len() {
            assert!(read(&one[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn several_frames_of_zstd_are_one_file_and_a_cut_one_is_an_error() {
        let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x'][..], &zstandard("a\n")].concat();
        assert_eq!(read(&[skippable, zstandard("b\n")].concat()).unwrap(), "a\nb\n");
        let one = zstandard("a\n");
        for length in 4..one.len() {
            assert!(read(&one[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn what_is_not_read_is_named_with_the_command_that_reads_it() {
        for (bytes, name) in [
            (&b"\xfd7zXZ\0..."[..], "xz -dc"),
            (b"BZh9...", "bzip2 -dc"),
            (b"PK\x03\x04...", "unzip -p"),
            (b"\xff\xfe{\0", "iconv"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("| sluicegate send -"), "{error}");
        }
    }

    #[test]
    fn what_is_read_of_the_file_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, count) = (folder.path().join("file"), Arc::new(AtomicU64::new(0)));
        std::fs::write(&path, zstandard(&"a\n".repeat(1000))).unwrap();
        let mut text = String::new();
        open(&path, &count).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.len(), count.load(Relaxed)), (2000, std::fs::metadata(&path).unwrap().len()));
        assert!(open(folder.path(), &count).is_err_and(|error| error.to_string() == "it is a folder"));
    }
}
