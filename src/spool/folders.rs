//! The folder of a table: it has the table's name, unless a file or folder of the spool itself has that
//! name. Then a prefix stands before it that no table's name begins with.

use std::io;
use std::path::{Path, PathBuf};

use super::file_name::parse_name;
use super::numbers;
use super::storage::{EntryKind, FolderEntry, Storage};

/// The folder of the logs of request keys.
pub(super) const KEYS: &str = "keys";
/// The folder of the journal.
pub(super) const STATE: &str = "state";
/// The file that keeps room on the disk.
pub(super) const SPARE: &str = "spare";
/// The file that the owner locks.
pub(super) const LOCK: &str = "lock";
/// The file with the node id.
pub(super) const NODE_ID: &str = "node-id";

/// The folder of the log: the segments of all tables.
pub(super) const LOG: &str = "log";
/// The folder of what could not be read.
pub(super) const DAMAGED: &str = "damaged";
/// The folder in a table's folder of the logs of event identities.
pub(super) const SEEN: &str = "seen";

/// The folder in the log's folder for files that are to be used again.
pub(super) const RECYCLED: &str = "recycled";
/// The same in a table's folder.
pub(super) const FREE: &str = "free";

/// What the spool has for itself in its folder, or will have.
const OWN: [&str; 11] = [KEYS, STATE, SPARE, LOCK, NODE_ID, "node-id.new", LOG, "held", DAMAGED, SEEN, "schema"];

/// `=` is in no name of a table.
const PREFIX: &str = "table=";

/// The folder of a table's segments, in the folder of a spool.
pub fn table_folder(dir: &Path, table: &str) -> PathBuf {
    if OWN.contains(&table) { dir.join(format!("{PREFIX}{table}")) } else { dir.join(table) }
}

/// The table whose folder has this name; `None` for one of the spool's own.
pub(super) fn table_of(folder: &str) -> Option<&str> {
    match folder.strip_prefix(PREFIX) {
        Some(table) => Some(table),
        None => (!OWN.contains(&folder)).then_some(folder),
    }
}

/// Moves tables out of the spool's own folders, where releases before this one kept them.
pub(super) fn move_tables(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
    for name in OWN {
        let (from, to) = (dir.join(name), table_folder(dir, name));
        let Ok(entries) = storage.list(&from) else { continue };
        // Each table has the folder `free`, and the spool's own folders have none; it goes last.
        let mut of_table: Vec<_> = entries.into_iter().filter(is_of_a_table).map(|entry| entry.name).collect();
        if !of_table.iter().any(|name| name == FREE) {
            continue;
        }
        of_table.sort_unstable_by_key(|name| name == FREE);
        storage.make_folder(&to)?;
        for name in of_table {
            storage.rename(&from.join(&name), &to.join(&name))?;
            storage.sync_folder(&to)?;
        }
        storage.sync_folder(&from)?;
        tracing::warn!(table = name, to = %to.display(), "the table's files were among the spool's own and got a folder");
    }
    Ok(())
}

fn is_of_a_table(entry: &FolderEntry) -> bool {
    match entry.kind {
        EntryKind::Folder => true,
        _ => {
            let name = entry.name.as_str();
            parse_name(name).is_some() || name.ends_with(".cut") || [numbers::NAME, "schema.json"].contains(&name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_has_a_folder_of_the_spool() {
        let dir = Path::new("/s");
        for own in OWN {
            let folder = table_folder(dir, own);
            let name = folder.file_name().unwrap().to_str().unwrap();
            assert!(!OWN.contains(&name) && table_of(own).is_none());
            assert_eq!(table_of(name), Some(own));
        }
        for table in ["events", "keys2", "web.hits", "free"] {
            assert_eq!((table_folder(dir, table), table_of(table)), (dir.join(table), Some(table)));
        }
    }
}
