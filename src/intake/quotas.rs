//! The rates that events are charged to: that of the key's name, or everyone's, that of the client's
//! address, and that of the table.
//!
//! Events are charged once they are read, all of a request or none. What turns out not to be stored after
//! all, because it is a repeat or the disk refused it, is given back.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::RatedAddresses;
use crate::api::keys::{Owners, Writer};
use crate::api::rate::{Quota, Rate, RateCell};
use crate::api::{Fault, IngestOptions, OVER_BURST, OVER_RATE};
use crate::batch::{CommitOutcome, TableIndex};
use crate::clock::monotonic_ns;
use crate::limits;

/// All rates.
#[derive(Debug)]
pub struct Quotas {
    owners: Arc<Owners>,
    per_address: Option<(Rate, RatedAddresses)>,
    /// In the order of the tables; those behind the last have no rate.
    per_table: Box<[Option<(Rate, RateCell)>]>,
}

/// What a request was charged, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Debit {
    /// The table that its events are for.
    pub table: TableIndex,
    /// Whose key it has.
    pub writer: Option<Writer>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// Its lines, accepted or rejected.
    pub lines: u32,
    /// Those that are acknowledged by its reply.
    pub accepted: u32,
    /// Its place among the requests of its batch that have a key, if it has one.
    pub keyed: Option<usize>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverQuota {
    /// It has more events than ever pass at once.
    OverBurst,
    /// It would pass later.
    OverRate(Quota),
}

impl OverQuota {
    /// The error reply.
    pub const fn fault(self) -> Fault {
        match self {
            Self::OverBurst => OVER_BURST,
            Self::OverRate(_) => OVER_RATE,
        }
    }
}

impl Quotas {
    /// The rates of these owners, and one for each address.
    pub fn new(owners: Arc<Owners>, per_address: Option<Rate>) -> Self {
        let per_address = per_address.map(|rate| (rate, RatedAddresses::new(limits::RATED_ADDRESSES)));
        Self { owners, per_address, per_table: Box::default() }
    }

    /// With a rate for all events of each of these tables that has one.
    #[must_use]
    pub fn with_tables(self, rates: impl IntoIterator<Item = Option<Rate>>) -> Self {
        let cells = rates.into_iter().map(|rate| rate.map(|rate| (rate, RateCell::default())));
        Self { per_table: cells.collect(), ..self }
    }

    /// True when nothing is charged to or counted for a request with these options.
    #[inline]
    pub fn is_free(&self, options: IngestOptions) -> bool {
        options.writer.is_none() && self.per_address.is_none() && self.of_table(options.table).is_none()
    }

    /// Charges a request, and returns what is left of the rate that is nearest to its end.
    ///
    /// # Errors
    ///
    /// The request does not pass; nothing is charged.
    pub fn charge(&self, debit: &Debit) -> Result<Option<Quota>, OverQuota> {
        let now = monotonic_ns();
        let cells = self.cells(debit, now);
        if cells.into_iter().flatten().any(|(_, rate)| debit.lines > rate.burst()) {
            return Err(OverQuota::OverBurst);
        }
        let mut nearest: Option<Quota> = None;
        for (place, (cell, rate)) in cells.into_iter().enumerate().filter_map(|(place, cell)| Some((place, cell?))) {
            match cell.charge(rate, debit.lines, now) {
                Ok(quota) if nearest.is_none_or(|nearest| quota.remaining < nearest.remaining) => nearest = Some(quota),
                Ok(_) => {}
                Err(quota) => {
                    let charged = cells.into_iter().take(place).flatten();
                    charged.for_each(|(cell, rate)| cell.refund(rate, debit.lines));
                    return Err(OverQuota::OverRate(quota));
                }
            }
        }
        Ok(nearest)
    }

    /// Gives back what a request was charged.
    pub fn refund(&self, debit: &Debit) {
        for (cell, rate) in self.cells(debit, monotonic_ns()).into_iter().flatten() {
            cell.refund(rate, debit.lines);
        }
    }

    /// Counts the events of requests, or gives back what they were charged, as the outcome of each says, which
    /// is known by its place among those with a key. `None` is a passed deadline: the events may be stored yet.
    pub fn settle(&self, debits: &[Debit], outcome: impl Fn(Option<usize>) -> Option<CommitOutcome>) {
        for debit in debits {
            match outcome(debit.keyed) {
                Some(CommitOutcome::Committed { .. } | CommitOutcome::Deduplicated { .. }) => {
                    if let Some(writer) = debit.writer {
                        self.owners.get(writer.owner).count_accepted(debit.accepted.into());
                    }
                }
                Some(
                    CommitOutcome::Repeated { .. }
                    | CommitOutcome::KeyReused
                    | CommitOutcome::NoRepeat
                    | CommitOutcome::Refused(_),
                ) => self.refund(debit),
                None => {}
            }
        }
    }

    /// What a request is charged to.
    fn cells(&self, debit: &Debit, now: u64) -> [Option<(&RateCell, Rate)>; 3] {
        [self.of_address(debit, now), self.of_key(debit), self.of_table(debit.table)]
    }

    fn of_table(&self, table: TableIndex) -> Option<(&RateCell, Rate)> {
        let (rate, cell) = self.per_table.get(table.get())?.as_ref()?;
        Some((cell, *rate))
    }

    fn of_key(&self, debit: &Debit) -> Option<(&RateCell, Rate)> {
        let Writer { owner, rate } = debit.writer?;
        Some((&self.owners.get(owner).rate, rate?))
    }

    fn of_address(&self, debit: &Debit, now: u64) -> Option<(&RateCell, Rate)> {
        let (rate, addresses) = self.per_address.as_ref()?;
        Some((addresses.cell(debit.address?, now)?, *rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::keys::OwnerId;
    use crate::batch::{BlockNumber, CommitRefusal, SegmentNumber};

    fn quotas(per_address: &str) -> Quotas {
        Quotas::new(Arc::new(Owners::new(1)), Some(per_address.parse().unwrap()))
    }

    fn debit(lines: u32, rate: &str) -> Debit {
        let writer = Some(Writer { owner: OwnerId::EVERYONE, rate: rate.parse().ok() });
        let address = Some([127, 0, 0, 1].into());
        Debit { table: TableIndex::default(), writer, address, lines, accepted: lines, keyed: None }
    }

    #[test]
    fn a_request_is_charged_to_its_key_and_to_its_address_or_to_neither() {
        let quotas = quotas("1/s,burst=10");
        assert_eq!(quotas.charge(&debit(6, "1/s,burst=8")).unwrap().map(|quota| quota.remaining), Some(2));
        // The key refuses: the address still has its four.
        assert!(matches!(quotas.charge(&debit(4, "1/s,burst=8")), Err(OverQuota::OverRate(quota)) if quota.limit == 8));
        let other = Debit { writer: None, ..debit(4, "") };
        assert_eq!(quotas.charge(&other).unwrap().map(|quota| quota.remaining), Some(0));
        // The address refuses: the key still has its two.
        assert!(
            matches!(quotas.charge(&debit(1, "1/s,burst=8")), Err(OverQuota::OverRate(quota)) if quota.limit == 10)
        );
        let elsewhere = Debit { address: Some([127, 0, 0, 2].into()), ..debit(2, "1/s,burst=8") };
        assert_eq!(quotas.charge(&elsewhere).unwrap().map(|quota| quota.remaining), Some(0));
        assert_eq!(quotas.charge(&debit(11, "1/s,burst=80")), Err(OverQuota::OverBurst));
        assert_eq!(quotas.charge(&debit(9, "1/s,burst=8")), Err(OverQuota::OverBurst));
    }

    #[test]
    fn a_request_is_charged_to_its_table_as_well_or_to_nothing() {
        let rate = |text: &str| text.parse::<Rate>().ok();
        let quotas = quotas("1/s,burst=20").with_tables([None, rate("1/s,burst=5")]);
        let debit = |table, lines| Debit { table: TableIndex::new(table), ..debit(lines, "1/s,burst=15") };
        assert_eq!(quotas.charge(&debit(1, 3)).unwrap().map(|quota| (quota.limit, quota.remaining)), Some((5, 2)));
        // The table refuses: its two are still there, and so are the key's twelve and the address's 17.
        assert!(matches!(quotas.charge(&debit(1, 3)), Err(OverQuota::OverRate(quota)) if quota.limit == 5));
        assert_eq!(quotas.charge(&debit(1, 6)), Err(OverQuota::OverBurst));
        assert_eq!(quotas.charge(&debit(1, 2)).unwrap().map(|quota| quota.remaining), Some(0));
        assert_eq!(quotas.charge(&debit(0, 10)).unwrap().map(|quota| (quota.limit, quota.remaining)), Some((15, 0)));
        // The key refuses: the table had nothing left anyway, and gets back what is given back.
        assert!(matches!(quotas.charge(&debit(0, 1)), Err(OverQuota::OverRate(quota)) if quota.limit == 15));
        quotas.settle(&[debit(1, 3)], |_| Some(CommitOutcome::Refused(CommitRefusal::SpoolFull)));
        assert_eq!(quotas.charge(&debit(1, 3)).unwrap().map(|quota| quota.remaining), Some(0));
    }

    #[test]
    fn a_request_without_a_key_is_free_where_its_table_has_no_rate() {
        let owners = || Arc::new(Owners::new(1));
        let options = |table| IngestOptions { table: TableIndex::new(table), ..IngestOptions::default() };
        let quotas = Quotas::new(owners(), None).with_tables([None, "1/s".parse().ok()]);
        assert_eq!([0, 1, 2].map(|table| quotas.is_free(options(table))), [true, false, true]);
        assert!(Quotas::new(owners(), None).is_free(options(1)));
        // Two clients without a key share the rate of the table.
        let debit =
            Debit { table: TableIndex::new(1), writer: None, address: None, lines: 1, accepted: 1, keyed: None };
        assert!(quotas.charge(&debit).is_ok());
        assert!(matches!(quotas.charge(&debit), Err(OverQuota::OverRate(_))));
    }

    #[test]
    fn what_is_not_stored_is_given_back_and_what_is_stored_is_counted() {
        let block = BlockNumber::first(SegmentNumber::new(1));
        let outcomes = [
            (Some(CommitOutcome::Committed { block }), false),
            (Some(CommitOutcome::Refused(CommitRefusal::DiskFull)), true),
            (Some(CommitOutcome::KeyReused), true),
            (None, false),
        ];
        for (outcome, is_back) in outcomes {
            let quotas = quotas("1/s,burst=10");
            let debit = debit(10, "1/s,burst=10");
            quotas.charge(&debit).unwrap();
            quotas.settle(&[debit], |_| outcome);
            assert_eq!(quotas.charge(&debit).is_ok(), is_back, "{outcome:?}");
        }
    }
}
