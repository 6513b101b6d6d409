//! Where the keys of a line lead: the table's own names, and the tree of the mapping's paths.
//!
//! A key that leads to one column alone is [`KeyTarget::Field`]. Any other key is a *node*: it has
//! *takers*, the columns that want its value, or paths that go on inside of it, or both. A column with
//! several sources takes the one with the lowest *rank*; the key that is spelled like a whole path has a
//! lower rank than the path.

use std::collections::BTreeMap;

use super::mapping::path_parts;
use super::names::{KeyTarget, Names};

/// A key that does not lead to one column alone.
#[derive(Debug)]
pub(crate) struct Node {
    /// The columns that want the value.
    pub(crate) takers: Box<[Taker]>,
    /// Where the keys of an object lead that is the value.
    pub(crate) inside: Option<ObjectKeys>,
    /// The names from the line's object to this key, joined with dots.
    pub(crate) path: Box<str>,
}

/// Where the keys of a nested object lead.
#[derive(Debug)]
pub(crate) struct ObjectKeys {
    names: Names,
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
    pub(crate) rank: u8,
    /// True if a source that is named before this one may follow it in the line.
    pub(crate) waits: bool,
}

impl ObjectKeys {
    /// Where a key leads.
    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        self.names.target(key)
    }

    /// The names, and where they lead.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&str, KeyTarget)> + Clone {
        self.names.iter()
    }
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
            for (place, name) in names.into_iter().enumerate() {
                let rank = u8::try_from(place * 2).ok()?;
                let mut take = |branch: &mut Branch, rank| {
                    let source = u16::try_from(paths.sources).ok()?;
                    paths.sources += 1;
                    branch.is_alone = is_alone;
                    branch.takers.push(Taker { field, source, rank, waits: place > 0 });
                    Some(())
                };
                take(root.below.entry(name.to_owned()).or_default(), rank)?;
                paths.known.push(name.into());
                if let Some(parts) = path_parts(name) {
                    paths.known.extend(parts.first().map(|part| (*part).into()));
                    let mut branch = &mut root;
                    for part in parts {
                        branch = branch.below.entry(part.to_owned()).or_default();
                    }
                    take(branch, rank + 1)?;
                }
            }
        }
        let mut targets = paths.lower(root.below, "")?;
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
    fn lower(&mut self, below: BTreeMap<String, Branch>, path: &str) -> Option<Vec<(String, KeyTarget)>> {
        let mut targets = Vec::new();
        for (name, branch) in below {
            let target = match branch.takers.as_slice() {
                [only] if branch.is_alone && branch.below.is_empty() => KeyTarget::Field(only.field),
                _ => self.add_node(branch, &format!("{path}{name}"))?,
            };
            targets.push((name, target));
        }
        Some(targets)
    }

    fn add_node(&mut self, branch: Branch, path: &str) -> Option<KeyTarget> {
        let mut inside = None;
        if !branch.below.is_empty() {
            let index = u16::try_from(self.objects).ok()?;
            self.objects += 1;
            let targets = self.lower(branch.below, &format!("{path}."))?;
            let names = Names::new(targets.iter().map(|(name, target)| (name.as_str(), *target)));
            inside = Some(ObjectKeys { names, index });
        }
        let number = u16::try_from(self.nodes.len()).ok()?;
        self.nodes.push(Node { takers: branch.takers.into(), inside, path: path.into() });
        Some(KeyTarget::Node(number))
    }

    /// Where a key of the line's own object leads.
    #[inline]
    pub(crate) fn target(&self, key: &[u8]) -> KeyTarget {
        self.names.target(key)
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
