//! The names of segments' files.

use super::storage::EntryKind;
use crate::batch::{BlockNumber, SegmentNumber};

/// The kind of a segment's file, which is its file name extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A segment that is open, or sealed.
    Segment,
    /// One that an older release has sent; it gets the other name when it is adopted.
    Sent,
    /// The copy that a recovery is writing.
    Copy,
    /// What was readable of a damaged block of a segment, which the block's index is of.
    Block(u16),
}

impl FileKind {
    const ALL: [(Self, &'static str); 3] = [(Self::Segment, "segment"), (Self::Sent, "sent"), (Self::Copy, "copy")];

    pub(super) fn extension(self) -> String {
        match self {
            Self::Block(index) => format!("{index}.segment"),
            kind => {
                Self::ALL.iter().find(|(known, _)| *known == kind).map_or("", |(_, extension)| extension).to_owned()
            }
        }
    }

    fn of_extension(extension: &str) -> Option<Self> {
        if let Some((kind, _)) = Self::ALL.iter().find(|(_, known)| *known == extension) {
            return Some(*kind);
        }
        let index = extension.strip_suffix(".segment")?;
        index.parse().ok().filter(|parsed: &u16| parsed.to_string() == index).map(Self::Block)
    }
}

/// Numbers beyond this one are not believed: there would be none left.
const NUMBER_MAX: SegmentNumber = SegmentNumber::new(BlockNumber::SEGMENTS / 2);

/// Number and kind of a segment's file; `None` for any other.
pub(super) fn parse_name(name: &str) -> Option<(SegmentNumber, FileKind)> {
    let (stem, extension) = name.split_once('.')?;
    let kind = FileKind::of_extension(extension)?;
    let number = stem.parse().ok().filter(|number| *number <= NUMBER_MAX)?;
    (stem == format!("{number:020}")).then_some((number, kind))
}

/// True for the name of a segment that no segment has: its number is not written as numbers are; or the
/// name is one of the spool's, of a folder or a link.
pub(super) fn is_like_a_segment(name: &str, kind: EntryKind) -> bool {
    let Some((stem, extension)) = name.split_once('.') else { return false };
    let is_ours = stem.bytes().all(|byte| byte.is_ascii_digit())
        && ["segment", "sent", "copy", "new", "cut"].contains(&extension);
    match kind {
        EntryKind::File => ["segment", "sent"].contains(&extension),
        EntryKind::Folder | EntryKind::Other => is_ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_segment_is_parsed_and_other_names_are_not() {
        assert_eq!(parse_name("00000000000000000007.sent"), Some((SegmentNumber::new(7), FileKind::Sent)));
        for other in ["schema.json", "7", "x.segment", "7.segment", "7.segment.new", "free", ".segment"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert_eq!(parse_name(&format!("{}.sent", u64::MAX)), None, "no number would be left");
    }
}
