//! Tests of an outbox of several tables.

use super::*;
use crate::limits::{BATCH_BYTES_KEPT, SPARE_BATCHES_BYTES_MAX, TURN_BYTES_MAX, TURN_TABLES_BYTES_MAX};

const COMMITTED: CommitOutcome = CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) };

fn table(place: usize) -> TableIndex {
    TableIndex::new(u16::try_from(place).unwrap())
}

/// An outbox of so many tables, each with its place as what is frozen.
fn outbox(batches: usize, tables: usize, budget: Arc<ByteBudget>) -> (Outbox, Handoff) {
    let mailbox = Mailbox::woken_by(|| ()).with_batches(batches);
    let handoff = Handoff::new(vec![mailbox], Arc::default());
    let mut outbox = Outbox::new(0, handoff.batches(0), tables, budget);
    for place in 0..tables {
        outbox.change_schema(table(place), vec![place as u8].into(), &handoff);
    }
    (outbox, handoff)
}

fn large_budget() -> Arc<ByteBudget> {
    ByteBudget::new(BudgetLimits { max: 1 << 30, request_max: 1 << 10 })
}

/// Adds a request for a table, as a worker does.
fn join(outbox: &mut Outbox, place: usize, bytes: usize, handoff: &Handoff) -> Sequence {
    let mut filling = outbox.fill(table(place)).unwrap();
    let batch = filling.batch();
    batch.rows.bytes.resize(batch.rows.bytes.len() + bytes, place as u8);
    let sequence = batch.sequence;
    let is_full = filling.join(waiter(place));
    outbox.hand_over_full(table(place), is_full, handoff);
    sequence
}

/// The tables and lengths of the batches that were handed over, each of which holds only its table's rows.
fn handed_over(handoff: &Handoff, all: &mut Vec<Batch>) -> Vec<(usize, usize)> {
    let batches: Vec<Batch> = std::iter::from_fn(|| handoff.next()).collect();
    for batch in &batches {
        let place = batch.table.get() as u8;
        assert_eq!(batch.frozen[..], [place]);
        assert!(batch.rows.bytes.iter().all(|byte| *byte == place));
    }
    let contents = batches.iter().map(|batch| (batch.table.get(), batch.len())).collect();
    all.extend(batches);
    contents
}

fn settle_all(outbox: &mut Outbox, batches: Vec<Batch>) -> Vec<Settled> {
    let returned = batches.into_iter().map(|batch| Returned { batch, outcome: COMMITTED });
    returned.map(|returned| outbox.settle(returned).unwrap()).collect()
}

#[test]
fn each_table_has_a_batch_of_its_own_in_a_turn_and_the_first_to_be_opened_goes_first() {
    let ((mut outbox, handoff), mut all) = (outbox(20, 3, budget()), Vec::new());
    for place in [2, 0, 2, 1, 0, 2] {
        join(&mut outbox, place, 1 + place, &handoff);
    }
    assert!(handoff.next().is_none() && !outbox.is_empty());
    assert!(outbox.hand_over(&handoff) && !outbox.hand_over(&handoff));
    assert_eq!(handed_over(&handoff, &mut all), [(2, 9), (0, 2), (1, 2)]);
    let settled = settle_all(&mut outbox, all);
    let waiters = settled.iter().map(|settled| (settled.table.get(), settled.waiters.len()));
    assert_eq!(waiters.collect::<Vec<_>>(), [(2, 3), (0, 2), (1, 1)]);
    assert!(settled.iter().all(|settled| settled.waiters.iter().all(|waiter| waiter.slot == settled.table.get())));
    assert!(outbox.is_empty());
}

#[test]
fn a_full_batch_is_handed_over_alone() {
    let ((mut outbox, handoff), mut all) = (outbox(20, 3, budget()), Vec::new());
    join(&mut outbox, 0, 1, &handoff);
    join(&mut outbox, 1, TURN_BYTES_MAX, &handoff);
    assert_eq!(handed_over(&handoff, &mut all), [(1, TURN_BYTES_MAX)]);
    for _ in 0..limits::TURN_REQUESTS_MAX {
        join(&mut outbox, 2, 1, &handoff);
    }
    assert_eq!(handed_over(&handoff, &mut all), [(2, limits::TURN_REQUESTS_MAX)]);
    join(&mut outbox, 1, 1, &handoff);
    outbox.hand_over(&handoff);
    assert_eq!(handed_over(&handoff, &mut all), [(0, 1), (1, 1)]);
}

#[test]
fn all_are_handed_over_once_together_they_have_what_a_turn_may_have() {
    let ((mut outbox, handoff), mut all) = (outbox(20, 10, large_budget()), Vec::new());
    let almost = TURN_BYTES_MAX - 1;
    for place in 0..4 {
        join(&mut outbox, place, almost, &handoff);
    }
    assert_eq!(handed_over(&handoff, &mut all), [], "one byte each is missing");
    join(&mut outbox, 7, TURN_TABLES_BYTES_MAX - 4 * almost - 1, &handoff);
    assert_eq!(handed_over(&handoff, &mut all), []);
    join(&mut outbox, 7, 1, &handoff);
    assert_eq!(handed_over(&handoff, &mut all).len(), 5);
}

#[test]
fn a_change_of_one_schema_hands_over_the_batch_of_its_table_alone() {
    let (mut outbox, handoff) = outbox(20, 3, budget());
    for place in 0..3 {
        join(&mut outbox, place, 1, &handoff);
    }
    outbox.change_schema(table(1), b"new".to_vec().into(), &handoff);
    let batch = handoff.next().unwrap();
    assert_eq!((batch.table, &batch.frozen[..]), (table(1), &[1][..]));
    assert!(handoff.next().is_none());
    join(&mut outbox, 1, 1, &handoff);
    outbox.hand_over(&handoff);
    let frozen: Vec<Vec<u8>> = std::iter::from_fn(|| handoff.next()).map(|batch| batch.frozen.to_vec()).collect();
    assert_eq!(frozen, [vec![0], vec![2], b"new".to_vec()]);
}

#[test]
fn a_batch_is_handed_over_by_its_sequence_and_the_others_stay() {
    let ((mut outbox, handoff), mut all) = (outbox(20, 3, budget()), Vec::new());
    let sequences: Vec<Sequence> = (0..3).map(|place| join(&mut outbox, place, 1, &handoff)).collect();
    outbox.hand_over_batch(sequences[1], &handoff);
    outbox.hand_over_batch(sequences[1], &handoff);
    assert_eq!(handed_over(&handoff, &mut all), [(1, 1)]);
    outbox.hand_over_table(table(0), &handoff);
    outbox.hand_over_table(table(1), &handoff);
    assert_eq!(handed_over(&handoff, &mut all), [(0, 1)]);
}

#[test]
fn a_batch_that_no_request_has_joined_is_there_for_each_other_table() {
    let (mut outbox, handoff) = outbox(2, 4, budget());
    // Two requests that are refused have taken both.
    drop(outbox.fill(table(0)).unwrap());
    drop(outbox.fill(table(1)).unwrap());
    assert!(outbox.has_room(Size::Small));
    join(&mut outbox, 2, 1, &handoff);
    assert!(outbox.has_room(Size::Small));
    let own = outbox.open_own(table(3)).unwrap();
    assert!(!outbox.has_room(Size::Small), "both are in use");
    assert!(outbox.fill(table(0)).is_none() && outbox.open_own(table(2)).is_none());
    outbox.put_back(own);
    join(&mut outbox, 3, 1, &handoff);
    assert!(!outbox.has_room(Size::Small));
    outbox.hand_over(&handoff);
    let mut all = Vec::new();
    assert_eq!(handed_over(&handoff, &mut all), [(2, 1), (3, 1)]);
    settle_all(&mut outbox, all);
    assert!(outbox.has_room(Size::Small));
    assert!(outbox.fill(table(4)).is_none(), "there is no such table");
}

#[test]
fn an_overdue_batch_is_that_of_its_table_and_the_others_have_their_time() {
    let (mut outbox, handoff) = outbox(20, 3, budget());
    let hour = Duration::from_secs(3600);
    for place in 0..3 {
        join(&mut outbox, place, 1, &handoff);
    }
    outbox.hand_over(&handoff);
    outbox.under_way[1].begun = Instant::now().checked_sub(2 * hour).unwrap();
    let late = outbox.overdue(hour).unwrap();
    assert_eq!((late.table, late.outcome, late.waiters), (table(1), None, vec![waiter(1)]));
    assert!(outbox.overdue(hour).is_none());
    let settled = settle_all(&mut outbox, std::iter::from_fn(|| handoff.next()).collect());
    assert_eq!(settled.iter().map(|settled| settled.waiters.len()).collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn the_number_of_batches_grows_with_the_tables_up_to_its_maximum() {
    let of = limits::batches_per_worker;
    assert_eq!([0, 1, 2, 32, 121].map(of), [16, 16, 18, 78, 256]);
    assert_eq!([122, 1000, usize::MAX].map(of), [limits::WORKER_BATCHES_MAX; 3]);
    // Every request of two turns may be for another table: all of them have a batch.
    let tables = 1000;
    let (mut outbox, handoff) = outbox(of(tables), tables, large_budget());
    for place in 0..limits::WORKER_BATCHES_MAX {
        assert!(outbox.has_room(Size::Small), "{place}");
        join(&mut outbox, place, 1, &handoff);
    }
    assert!(!outbox.has_room(Size::Small));
    outbox.hand_over(&handoff);
    let mut all = Vec::new();
    assert_eq!(handed_over(&handoff, &mut all).len(), limits::WORKER_BATCHES_MAX);
    // The queue back to the worker has room for all of them.
    for batch in all {
        handoff.give_back(Returned { batch, outcome: COMMITTED });
    }
    while let Some(returned) = handoff.mailbox(0).unwrap().take() {
        outbox.settle(returned).unwrap();
    }
    assert!(outbox.is_empty() && outbox.has_room(Size::Small));
}

#[test]
fn spare_batches_of_many_tables_keep_no_more_memory_than_those_of_one() {
    let tables = 100;
    let (mut outbox, handoff) = outbox(limits::batches_per_worker(tables), tables, large_budget());
    let held = |outbox: &Outbox| outbox.spare.iter().map(Batch::memory).sum::<usize>();
    assert_eq!(held(&outbox), 0, "batches that were not used hold memory");
    for bytes in [1000, BATCH_BYTES_KEPT, 4 * BATCH_BYTES_KEPT, 1] {
        for place in 0..tables {
            join(&mut outbox, place, bytes, &handoff);
        }
        outbox.hand_over(&handoff);
        settle_all(&mut outbox, std::iter::from_fn(|| handoff.next()).collect());
        assert_eq!(outbox.spare_bytes, held(&outbox));
        assert!(held(&outbox) <= SPARE_BATCHES_BYTES_MAX, "{bytes}");
        assert!(held(&outbox) >= 1000, "{bytes}: none keeps its memory");
    }
    outbox.shrink();
    assert_eq!((outbox.spare_bytes, held(&outbox)), (0, 0));
}

#[test]
fn whatever_comes_no_batch_is_lost_and_where_there_is_room_each_request_has_a_batch() {
    const TABLES: usize = 5;
    const BATCHES: usize = 7;
    let budget = budget();
    let ((mut outbox, handoff), mut random) = (outbox(BATCHES, TABLES, budget.clone()), 7u64);
    let mut own: Option<OwnBatch> = None;
    let mut committing = VecDeque::new();
    for step in 0..50_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (what, place) = (random >> 60, (random >> 40) as usize % TABLES);
        let has_room = outbox.has_room(Size::Small);
        match what {
            0..=4 if has_room => {
                join(&mut outbox, place, (random >> 20) as usize % 100, &handoff);
            }
            5..=6 if has_room => drop(outbox.fill(table(place)).expect("there is room")),
            7 if has_room => {
                // A request with a key.
                outbox.hand_over_table(table(place), &handoff);
                let filling = outbox.fill(table(place)).expect("there is room");
                let _ = filling.join(waiter(place));
                outbox.hand_over_full(table(place), true, &handoff);
            }
            8 if has_room && own.is_none() => own = Some(outbox.open_own(table(place)).expect("there is room")),
            9 => {
                if let Some(mut own) = own.take() {
                    if random & 1 << 30 == 0 {
                        let _ = own.fill().join(waiter(0));
                    }
                    outbox.hand_over_own(own, &handoff);
                }
            }
            10 => {
                outbox.hand_over(&handoff);
            }
            11 => outbox.change_schema(table(place), vec![place as u8].into(), &handoff),
            _ => committing.extend(std::iter::from_fn(|| handoff.next())),
        }
        if what > 12
            && let Some(batch) = committing.pop_front()
        {
            let place = batch.table.get();
            let settled = outbox.settle(Returned { batch, outcome: COMMITTED }).unwrap();
            assert_eq!(settled.table.get(), place);
            outbox.recycle(settled);
        }
        let filling = outbox.all_filling().count();
        assert_eq!(filling, outbox.filling.len(), "step {step}");
        let taken = filling + usize::from(own.is_some()) + outbox.under_way.len();
        assert_eq!(taken + outbox.spare.len(), BATCHES, "step {step}");
    }
    if let Some(own) = own {
        outbox.put_back(own);
    }
    outbox.hand_over(&handoff);
    committing.extend(std::iter::from_fn(|| handoff.next()));
    settle_all(&mut outbox, committing.into());
    assert_eq!((outbox.spare.len(), budget.bytes()), (BATCHES, 0));
}
