//! The requests of clients, as the workers submit them.

use super::*;

impl Life {
    /// Submits batches and runs the committer.
    pub(super) fn submit(&mut self) {
        let count = 1 + self.chance.below(*self.chance.clone().pick(&[1, 3, 8]));
        for _ in 0..count {
            let mut ids = vec![self.next_record()];
            // Several requests in one batch, new ones and repeats.
            while self.chance.one_in(3) {
                let next = self.next_record();
                ids.extend((self.table_of(next) == self.table_of(ids[0])).then_some(next));
            }
            let keyed = ids.iter().filter(|id| self.model.records[**id as usize].is_keyed);
            let keyed: Vec<u32> = keyed.copied().collect();
            self.reach_if(keyed.len() > 1, "several requests with a key share a batch");
            let distinct: BTreeSet<u32> = keyed.iter().copied().collect();
            self.reach_if(distinct.len() < keyed.len(), "one key comes twice in a batch");
            let table = self.table_of(ids[0]);
            let schema = if self.chance.one_in(12) { b'n' } else { b'f' };
            let process = self.process.as_mut().unwrap();
            process.sequence += 1;
            let mut batch = self.model.contents(&ids, process.sequence);
            batch.table = table;
            batch.frozen = vec![schema; FROZEN].into();
            process.under_way.insert(process.sequence, ids);
            process.exchange.submit(batch);
        }
        self.turn();
    }

    /// The table of a batch.
    pub(super) fn table_of(&self, id: u32) -> TableIndex {
        TableIndex::new(id as u16 % self.config.tables.len() as u16)
    }

    /// The request of a client: something new, or a repeat of one with a key or identities.
    fn next_record(&mut self) -> u32 {
        if self.is_copy {
            // Keys and identities are known to the node that took them.
            return self.model.batch(&mut self.chance, false, false);
        }
        // A client without an answer repeats its request more often than one with an answer.
        let again = if self.chance.one_in(3) { Promise::Kept } else { Promise::None };
        let records = (0..).zip(&self.model.records);
        let known = records.filter(|(_, record)| (record.is_keyed || record.is_identified) && record.promise == again);
        let known: Vec<u32> = known.map(|(id, _)| id).collect();
        if !known.is_empty() && self.chance.one_in(3) {
            return *self.chance.pick(&known);
        }
        let is_keyed = !self.kind.flips && self.chance.one_in(4);
        let is_identified = self.config.tables[0].has_identities && self.chance.one_in(2);
        self.model.batch(&mut self.chance, is_keyed, is_identified)
    }
}
