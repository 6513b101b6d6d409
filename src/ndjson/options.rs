//! What an encoder is told beside the plan: how it treats invalid text and addresses, what identifies events, what
//! it counts, and what its request says.

use std::sync::Arc;

use super::field_counts::FieldCounter;
use super::identify::Identifier;
use super::{AddressForm, AddressKey, FieldCounts, InvalidText, RequestValues, RowEncoder};
use crate::schema::{Plan, RequestInput};

impl RowEncoder {
    /// An encoder that treats invalid text in this way.
    #[must_use]
    pub fn with_invalid_text(self, invalid_text: InvalidText) -> Self {
        Self { invalid_text, ..self }
    }

    /// An encoder that also adds the identity of each event to the batch: the hash of its value in
    /// `column`. If clients fill no such column, events have no identity.
    #[must_use]
    pub fn identifying(mut self, column: Option<&str>) -> Self {
        self.identifying = column.map(str::to_owned);
        self.identifier = column.and_then(|column| Identifier::new(&self.plan, column));
        self
    }

    /// An encoder that stores clients' addresses in this form.
    #[must_use]
    pub fn writing_addresses(mut self, form: AddressForm) -> Self {
        self.address_form = form;
        self
    }

    /// An encoder with a key for columns whose addresses are hashed whatever the usual form is.
    #[must_use]
    pub fn hashing_addresses(mut self, key: Option<AddressKey>) -> Self {
        self.address_key = key;
        self
    }

    /// An encoder that counts fields for others to read.
    #[must_use]
    pub fn counting(mut self, counts: Arc<FieldCounts>) -> Self {
        self.counter = FieldCounter::new(counts);
        self
    }

    /// Changes what the columns of all further bodies get of their request's head.
    #[inline]
    pub fn set_request(&mut self, values: Arc<RequestValues>) {
        self.request = Some(values);
    }

    /// An encoder for a table whose columns get these of a request's head.
    #[must_use]
    pub fn with_request_inputs(mut self, inputs: Arc<[RequestInput]>) -> Self {
        self.inputs = inputs;
        self
    }

    /// What the table's columns get of a request's head.
    #[inline]
    pub fn request_inputs(&self) -> &[RequestInput] {
        &self.inputs
    }

    /// What is stored of clients' addresses.
    pub fn address_form(&self) -> &AddressForm {
        &self.address_form
    }

    /// Changes what is stored of clients' addresses, and returns what it was.
    pub fn write_addresses(&mut self, form: AddressForm) -> AddressForm {
        std::mem::replace(&mut self.address_form, form)
    }

    /// Changes the plan and forgets what was learned.
    pub fn follow(&mut self, plan: Arc<Plan>) {
        let (column, form) = (self.identifying.take(), std::mem::take(&mut self.address_form));
        let (key, mut counter) = (self.address_key.take(), std::mem::take(&mut self.counter));
        counter.add_guesses(self.plan.fields());
        let encoder = Self::new(plan, self.limits).with_invalid_text(self.invalid_text).hashing_addresses(key);
        let inputs = std::mem::take(&mut self.inputs);
        *self = Self { counter, inputs, ..encoder.identifying(column.as_deref()).writing_addresses(form) };
    }
}
