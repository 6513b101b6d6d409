//! Where the keys of a line lead: the table's own names, and the tree of the mapping's paths.
//!
//! A key that leads to one column alone is [`KeyTarget::Field`]. Any other key is a *node*: it has
//! *takers*, the columns that want its value, or paths that go on inside of it, or both. A column with
//! several sources takes the one with the lowest *rank*. A path may also be spelled out in keys, whole or in
//! part: `a.b.c` is the key `a.b.c`, or `c` in the object `a.b`, or `b.c` in `a`, or `c` in `b` in `a`; the longer
//! key has the lower rank.

use std::collections::BTreeMap;

use super::mapping::path_parts;
use super::names::{KeyTarget, Names};
use crate::limits;

/// A key that does not lead to one column alone.
#[derive(Debug)]
pub(crate) struct Node {
    /// The columns that want the value.
    pub(crate) takers: Box<[Taker]>,
    /// Where the keys of an object lead that is the value.
    pub(crate) inside: Option<ObjectKeys>,
    /// The names from the line's object to this key, joined with dots.
    pub(crate) path: Box<str>,
    /// True if a column takes an object that this key is in: what is left of the value is no unknown field.
    pub(crate) is_taken: bool,
}

/// Where the keys of a nested object lead.
#[derive(Debug)]
pub(crate) struct ObjectKeys {
    names: Names,
    /// True if a column takes the object, or one around it.
    is_taken: bool,
    /// The number of the object among all of the plan.
    pub(crate) index: u16,
}

/// A column that wants a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taker {
    /// The column's field.
    pub(crate) field: u16,
    /// The number of this source among all of the plan.
    pub(crate) source: u16,
    /// Of the column's sources in a line, the one with the lowest rank counts.
    pub(crate) rank: u16,
}

impl ObjectKeys {
    /// Where a key leads. A column that takes the whole object takes all keys.
    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        match self.names.target(key) {
            KeyTarget::Unknown if self.is_taken => KeyTarget::Server,
            target => target,
        }
    }

    /// The names, and where they lead.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&str, KeyTarget)> + Clone {
        self.names.iter()
    }
}

/// The keys that a name may be in a line, from the line's object on; those with the longer keys first.
fn spellings(name: &str) -> Vec<Vec<String>> {
    let Some(parts) = path_parts(name) else { return vec![vec![name.to_owned()]] };
    of_parts(&parts)
}

fn of_parts(parts: &[&str]) -> Vec<Vec<String>> {
    let mut spellings = vec![vec![parts.join(".")]];
    for length in (1..parts.len()).rev() {
        let Some((key, rest)) = parts.split_at_checked(length) else { continue };
        spellings.extend(of_parts(rest).into_iter().map(|rest| [vec![key.join(".")], rest].concat()));
    }
    spellings
}

/// The tree while it grows.
#[derive(Default)]
struct Branch {
    takers: Vec<Taker>,
    /// True if the only taker has no other source.
    is_alone: bool,
    below: BTreeMap<String, Branch>,
}

/// The way of all keys.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    names: Names,
    nodes: Vec<Node>,
    /// The number of sources of columns with several.
    pub(crate) sources: usize,
    /// The number of nested objects that are gone into.
    objects: usize,
    /// The names of the line's own object that lead somewhere, in the order of the columns.
    known: Vec<Box<str>>,
}

impl Paths {
    /// `fields` are the sources of each field, in order; `server` are names that are the server's own, unless a
    /// field is called so. `None` when there are too many of them.
    pub(crate) fn new<'a>(
        fields: impl Iterator<Item = Vec<&'a str>>,
        server: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let (mut paths, mut root) = (Self::default(), Branch::default());
        for (field, names) in fields.enumerate() {
            let field = u16::try_from(field).ok()?;
            let is_alone = matches!(names.as_slice(), [name] if path_parts(name).is_none());
            let mut rank = 0;
            for name in names {
                for keys in spellings(name) {
                    let first: Option<Box<str>> = keys.first().map(|key| key.as_str().into());
                    paths.known.extend(first.filter(|key| paths.known.last() != Some(key)));
                    let mut branch = &mut root;
                    for key in keys {
                        branch = branch.below.entry(key).or_default();
                    }
                    let source = u16::try_from(paths.sources).ok()?;
                    paths.sources += 1;
                    branch.is_alone = is_alone;
                    branch.takers.push(Taker { field, source, rank });
                    rank = u16::checked_add(rank, 1)?;
                }
            }
        }
        let mut targets = paths.lower(root.below, "", false)?;
        for name in server {
            if !targets.iter().any(|(known, _)| known == name) {
                targets.push((name.to_owned(), KeyTarget::Server));
                paths.known.push(name.into());
            }
        }
        paths.names = Names::new(targets.iter().map(|(name, target)| (name.as_str(), *target)));
        Some(paths)
    }

    /// The targets of the keys of one object, with the nodes below them.
    fn lower(
        &mut self,
        below: BTreeMap<String, Branch>,
        path: &str,
        is_taken: bool,
    ) -> Option<Vec<(String, KeyTarget)>> {
        let mut targets = Vec::new();
        for (name, branch) in below {
            let target = match branch.takers.as_slice() {
                [only] if branch.is_alone && branch.below.is_empty() => KeyTarget::Field(only.field),
                _ => self.add_node(branch, &format!("{path}{name}"), is_taken)?,
            };
            targets.push((name, target));
        }
        Some(targets)
    }

    fn add_node(&mut self, branch: Branch, path: &str, is_taken: bool) -> Option<KeyTarget> {
        let is_object_taken = is_taken || !branch.takers.is_empty();
        let mut inside = None;
        if !branch.below.is_empty() {
            let index = u16::try_from(self.objects).ok().filter(|_| self.objects < limits::MAPPED_OBJECTS_MAX)?;
            self.objects += 1;
            let targets = self.lower(branch.below, &format!("{path}."), is_object_taken)?;
            let names = Names::new(targets.iter().map(|(name, target)| (name.as_str(), *target)));
            inside = Some(ObjectKeys { names, is_taken: is_object_taken, index });
        }
        let number = u16::try_from(self.nodes.len()).ok()?;
        self.nodes.push(Node { takers: branch.takers.into(), inside, path: path.into(), is_taken });
        Some(KeyTarget::Node(number))
    }

    /// Where a key of the line's own object leads.
    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        self.names.target(key)
    }

    /// True if each key leads to one field, and each field has one key.
    pub(crate) fn has_no_nodes(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node.
    pub(crate) fn node(&self, number: u16) -> Option<&Node> {
        self.nodes.get(usize::from(number))
    }

    /// The names of the line's own object, and where they lead.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&str, KeyTarget)> + Clone {
        self.names.iter()
    }

    /// The keys of each nested object that paths go into, in the order of their indexes.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &ObjectKeys> {
        let mut objects: Vec<&ObjectKeys> = self.nodes.iter().filter_map(|node| node.inside.as_ref()).collect();
        objects.sort_by_key(|object| object.index);
        objects.into_iter()
    }

    /// The names of the line's own object that lead somewhere.
    pub(crate) fn known(&self) -> impl Iterator<Item = &str> + Clone {
        self.known.iter().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_spelled_in_keys_and_the_longer_key_comes_first() {
        let spelled = |name: &str| spellings(name).into_iter().map(|keys| keys.join("/")).collect::<Vec<_>>();
        assert_eq!(spelled("a"), ["a"]);
        assert_eq!(spelled("a.b"), ["a.b", "a/b"]);
        assert_eq!(spelled("a.b.c"), ["a.b.c", "a.b/c", "a/b.c", "a/b/c"]);
        for no_path in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(spelled(no_path), [no_path]);
        }
        assert_eq!(spelled("a.b.c.d.e.f.g.h").len(), 128, "the most");
    }

    #[test]
    fn paths_into_more_objects_than_are_supported_are_refused() {
        let deep = |number: usize| format!("a{number}.b.c.d.e.f.g.h");
        let names: Vec<String> = (0..9).map(deep).collect();
        let of = |count: usize| Paths::new(names[..count].iter().map(|name| vec![name.as_str()]), std::iter::empty());
        assert!(of(8).is_some() && of(9).is_none(), "127 objects each");
    }
}
