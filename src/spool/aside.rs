//! What is set aside: a file that is damaged, or has a segment's name and is none, goes to `damaged/`.
//! Nothing is deleted that could have held an acknowledged event.

use std::io;
use std::path::Path;

use super::layout::Layout;
use super::ledger::Events;
use super::metrics::SpoolMetrics;
use super::scan::events_without_identity;
use crate::batch::SegmentNumber;

/// Keeps a file in `damaged/`, durably; with `keep` under its own name too. One that is there
/// already, since a former attempt came so far, is there once.
pub(super) fn set_aside(layout: &Layout, path: &Path, keep: bool) -> io::Result<()> {
    let folder = layout.damaged_dir();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = std::iter::once(name.clone()).chain((1..).map(|copy| format!("{name}.{copy}")));
    for aside in names.map(|name| folder.join(name)) {
        match layout.storage().link(path, &aside) {
            Ok(()) => break,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if layout.storage().is_same_file(path, &aside)? => break,
            Err(_) => {}
        }
    }
    layout.storage().sync_folder(&folder)?;
    if !keep {
        layout.storage().remove(path)?;
    }
    Ok(())
}

/// Moves whatever has a segment's name and is no file, or has only nearly one, to `damaged/`, durably.
/// A folder has no second name, so it is moved in one step.
pub(super) fn set_aside_strange(layout: &Layout, name: &str) -> io::Result<()> {
    let folder = layout.damaged_dir();
    let taken = layout.storage().list(&folder)?;
    let mut names = std::iter::once(name.to_owned()).chain((1..).map(|copy| format!("{name}.{copy}")));
    let free = names.find(|name| taken.iter().all(|entry| entry.name != *name));
    let path = layout.folder().join(name);
    tracing::error!(path = %path.display(), "this has the name of a segment and is none; it is moved to damaged/");
    layout.storage().rename(&path, &folder.join(free.unwrap_or_default()))?;
    layout.storage().sync_folder(&folder)?;
    layout.sync_folder()
}

/// Sets a segment's file aside whose blocks can't be read, or say that it is another's, and books the
/// events that are readable in it.
pub(super) fn set_aside_unreadable(
    layout: &Layout,
    metrics: &SpoolMetrics,
    path: &Path,
    number: SegmentNumber,
    what: &str,
) -> io::Result<()> {
    let events = events_without_identity(&*layout.storage().open(path)?, number)?;
    set_aside(layout, path, false)?;
    book(metrics, path, events, what);
    Ok(())
}

/// Books events that a start found in a file that is set aside, and says so.
pub(super) fn book(metrics: &SpoolMetrics, path: &Path, events: Events, what: &str) {
    metrics.found_aside(events);
    let Events { rows, rejected } = events;
    tracing::error!(path = %path.display(), rows, rejected, "{what}; the file is kept in damaged/");
}
