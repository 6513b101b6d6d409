//! What the columns of a table get of a request's head.

/// The values of one request, in the order of
/// [`Mapping::request_inputs`](crate::schema::Mapping::request_inputs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestValues(Box<[Option<Box<str>>]>);

impl RequestValues {
    /// These values. An empty one is none.
    pub fn new(values: impl IntoIterator<Item = Option<Box<str>>>) -> Self {
        Self(values.into_iter().map(|value| value.filter(|value| !value.is_empty())).collect())
    }

    /// The value at a place.
    pub fn get(&self, place: usize) -> Option<&str> {
        self.0.get(place)?.as_deref()
    }
}
