//! The identity of an embedded ClickHouse: a UUID in its data folder.
//!
//! An embedded ClickHouse has no `serverUUID()`, and its URL says nothing: a folder may be served on
//! another port, and another folder under the same URL. The UUID is given to the engine as a macro, in
//! which those who ask for the facts of a table find it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Name of the macro, in the engine's configuration and in `system.macros`.
pub(super) const MACRO: &str = "sluicegate_server";

/// Name of the file in the data folder.
const FILE: &str = "sluicegate-server-id";

/// Reads the UUID of the server whose data are in `folder`. The first call makes one, durably.
///
/// # Errors
///
/// I/O errors; `InvalidData` if the file contains something else.
pub(super) fn of_folder(folder: &Path) -> io::Result<String> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) if is_uuid(text.trim()) => Ok(text.trim().to_owned()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it contains no UUID; delete it, and the server counts as another one",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = random_uuid()?;
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(id.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn is_uuid(text: &str) -> bool {
    let is_part = |part: &str, len| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, len)| is_part(part, len))
}

/// A random UUID (RFC 9562, section 5.4).
fn random_uuid() -> io::Result<String> {
    const VERSION_AND_VARIANT: u128 = 0xf << 76 | 0b11 << 62;
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let uuid = u128::from_be_bytes(bytes) & !VERSION_AND_VARIANT | 4 << 76 | 0b10 << 62;
    let part = |shift: u32| uuid >> shift & 0xffff;
    let (first, last) = (uuid >> 96, uuid & 0xffff_ffff_ffff);
    Ok(format!("{first:08x}-{:04x}-{:04x}-{:04x}-{last:012x}", part(80), part(64), part(48)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_uuid_and_another_one_has_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = of_folder(one.path()).unwrap();
        assert!(is_uuid(&id) && id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_eq!(of_folder(one.path()).unwrap(), id);
        assert_ne!(of_folder(two.path()).unwrap(), id);
    }

    #[test]
    fn what_a_crash_leaves_beside_the_file_is_no_identity_and_what_is_no_uuid_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE).with_extension("new"), "0").unwrap();
        let id = of_folder(folder.path()).unwrap();
        assert!(is_uuid(&id));
        for text in ["", "abc", &id[1..], &format!("{id}0"), &id.replace('-', "/"), &format!("{id} --user=x")] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let error = of_folder(folder.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
            assert!(error.to_string().contains(FILE), "{error}");
        }
        fs::write(folder.path().join(FILE), format!("{id}\n")).unwrap();
        assert_eq!(of_folder(folder.path()).unwrap(), id);
    }
}
