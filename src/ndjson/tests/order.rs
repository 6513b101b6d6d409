//! Tests of the learned orders.

use super::*;

/// Passes a line with these keys through the order, and returns the number of guessed keys.
fn line(order: &mut KeyOrder, keys: &[&str]) -> usize {
    line_with_turns(order, keys).0
}

/// The same, and how often another order had to be looked for.
fn line_with_turns(order: &mut KeyOrder, keys: &[&str]) -> (usize, usize) {
    order.begin_line();
    let (mut guessed, mut turns) = (0, 0);
    for key in keys {
        let spelling = format!("\"{key}\":");
        let body = format!("{spelling}1{:64}", "");
        let target = KeyTarget::Field(key.len() as u16);
        let head = body.as_bytes().first_chunk().unwrap();
        let is_next = order.expected().first().is_some_and(|step| step.matches(head));
        if !is_next && !order.is_sparse() {
            turns += usize::from(order.turn(head));
        }
        match order.guess(head) {
            Some(hit) => {
                assert_eq!(hit, (target, spelling.len()));
                guessed += 1;
            }
            None => order.learn(spelling.as_bytes(), target),
        }
    }
    order.end_line();
    let steps: usize = order.orders.iter().map(|order| order.steps.len()).sum();
    assert!(order.orders.len() <= ORDERS_MAX && steps <= order.all_steps_max, "{} {steps}", order.orders.len());
    (guessed, turns)
}

const LONG: &str = "a_key_that_is_longer_than_what_is_compared_at_once";
const TOO_LONG: &str = "a_key_that_is_longer_than_what_is_remembered_at_all_and_so_is_looked_up";

/// Keys, each of another length.
fn keys(count: usize) -> Vec<String> {
    (1..=count).map(|length| "k".repeat(length)).collect()
}

/// What looks like chance, for each number.
fn mixed(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 27
}

/// An order of the keys for each number.
fn shape(keys: &[String], number: usize) -> Vec<&str> {
    let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for at in (1..keys.len()).rev() {
        keys.swap(at, (mixed((number * 1000 + at) as u64) >> 20) as usize % (at + 1));
    }
    keys
}

#[test]
fn every_key_of_the_second_line_is_guessed() {
    let mut order = KeyOrder::new(8, Vec::new());
    assert_eq!(line(&mut order, &["a", "bb", LONG, "dddd"]), 0);
    assert_eq!(line(&mut order, &["a", "bb", LONG, "dddd"]), 4);
    assert_eq!(line(&mut order, &["a", "dddd"]), 2, "missing fields are stepped over");
    assert_eq!(line(&mut order, &["dddd"]), 1, "at the beginning as well");
    assert_eq!(line(&mut order, &["a", "bb"]), 2, "and not forgotten for it");
    assert_eq!(line(&mut order, &["a", "eeeee", "bb", LONG, "dddd"]), 4);
    assert_eq!(line(&mut order, &["a", "eeeee", "bb", LONG, "dddd"]), 5);
    assert_eq!(line(&mut order, &["a", "bb", LONG, "dddd"]), 4);
    assert_eq!(order.orders.len(), 1);
}

#[test]
fn another_order_is_learned_with_its_first_line_and_the_first_one_is_kept() {
    let mut order = KeyOrder::new(8, Vec::new());
    line(&mut order, &["a", "bb", "ccc", "dddd"]);
    line(&mut order, &["dddd", "ccc", "bb", "a"]);
    for _ in 0..3 {
        assert_eq!(line(&mut order, &["dddd", "ccc", "bb", "a"]), 4);
        assert_eq!(line(&mut order, &["a", "bb", "ccc", "dddd"]), 4);
    }
    assert_eq!(order.orders.len(), 2);
}

#[test]
fn clients_that_take_turns_are_expected_and_those_that_send_many_lines_too() {
    let keys = keys(10);
    let mut order = KeyOrder::new(10, Vec::new());
    // Of what came before, nothing is left but its places.
    for number in 100..100 + ORDERS_MAX {
        line(&mut order, &shape(&keys, number));
    }
    for run in [1, 30] {
        let mut turns = 0;
        for round in 0..8 {
            for number in 0..4 {
                for _ in 0..run {
                    let (guessed, turned) = line_with_turns(&mut order, &shape(&keys, number));
                    let is_known = round > 1;
                    assert!(guessed == 10 || !is_known, "{guessed} keys of {number} in round {round}");
                    turns += if is_known { turned } else { 0 };
                }
            }
        }
        // Where each line is another client's, none has to be looked for; else once for each run, or twice where two orders begin alike.
        assert!(turns <= if run == 1 { 4 } else { 6 * 4 * 3 / 2 }, "{turns} turns in runs of {run}");
    }
}

#[test]
fn orders_that_begin_alike_are_told_apart_where_they_part() {
    let keys = keys(12);
    let one: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut other = one.clone();
    other[4..].reverse();
    let mut order = KeyOrder::new(12, Vec::new());
    line(&mut order, &one);
    line(&mut order, &other);
    for _ in 0..3 {
        assert_eq!(line(&mut order, &one), 12);
        assert_eq!(line(&mut order, &other), 12);
    }
    assert_eq!(order.orders.len(), 2);
}

#[test]
fn as_many_orders_are_known_as_are_kept() {
    let keys = keys(10);
    let mut order = KeyOrder::new(10, Vec::new());
    for round in 0..4 {
        let guessed: usize = (0..16).map(|number| line(&mut order, &shape(&keys, number))).sum();
        assert!(round < 2 || guessed == 160, "{guessed} in round {round}");
    }
}

#[test]
fn the_order_that_was_followed_least_recently_has_to_go() {
    let keys = keys(10);
    let mut order = KeyOrder::new(10, Vec::new());
    for number in 0..4 * ORDERS_MAX {
        // The first one again and again, so that the others are no reason for a pause.
        for _ in 0..4 {
            line(&mut order, &shape(&keys, 0));
        }
        line(&mut order, &shape(&keys, number));
    }
    assert_eq!(order.orders.len(), ORDERS_MAX);
    assert_eq!(line(&mut order, &shape(&keys, 0)), 10);
    assert_eq!(line(&mut order, &shape(&keys, 4 * ORDERS_MAX - 1)), 10);
    assert!((1..9).map(|number| line(&mut order, &shape(&keys, number))).sum::<usize>() < 80);
}

#[test]
fn lines_that_lack_fields_in_turn_are_guessed_from_one_order() {
    let keys = keys(10);
    let mut order = KeyOrder::new(10, Vec::new());
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    line(&mut order, &all);
    let (mut guessed, mut given) = (0, 0);
    for number in 0..2000 {
        let is_there = |at: &usize| mixed(number) >> (at + 20) & 1 == 1;
        let some: Vec<&str> = (0..10).filter(is_there).map(|at| all[at]).collect();
        let hits = line(&mut order, &some);
        if number >= 100 {
            (guessed, given) = (guessed + hits, given + some.len());
        }
    }
    assert!(guessed * 100 >= given * 99, "{guessed} of {given}");
    assert!(order.is_sparse());
    for _ in 0..20 {
        assert_eq!(line(&mut order, &all), 10);
    }
    assert!(!order.is_sparse());
}

#[test]
fn without_a_common_order_guessing_pauses_for_longer_each_time_and_comes_back() {
    let keys = keys(10);
    let mut order = KeyOrder::new(10, Vec::new());
    let (mut pauses, mut paused) = (Vec::new(), 0);
    for number in 0..30_000 {
        line(&mut order, &shape(&keys, number));
        if order.pause > paused {
            pauses.push(order.pause);
        }
        paused = order.pause;
    }
    assert_eq!(pauses.get(..4), Some(&[100, 400, 1600, 6400][..]));
    assert!(pauses.iter().all(|pause| *pause <= PAUSE_LINES_MAX));
    for _ in 0..PAUSE_LINES_MAX + 2 {
        line(&mut order, &shape(&keys, 0));
    }
    assert_eq!(line(&mut order, &shape(&keys, 0)), 10);
    for _ in 0..MISSED_MAX {
        line(&mut order, &shape(&keys, 0));
    }
    assert_eq!(order.missed, 0);
}

#[test]
fn the_number_of_steps_is_limited() {
    let mut order = KeyOrder::new(1, Vec::new());
    let keys = keys(50);
    for number in 0..200 {
        line(&mut order, &shape(&keys, number));
        line(&mut order, &shape(&keys, 0)[..number % 50]);
        assert!(order.orders.iter().all(|order| order.steps.len() <= order.steps.capacity().min(114)));
    }
    assert_eq!(line(&mut order, &[TOO_LONG]), 0);
    // One key more with each line.
    let names: Vec<String> = (0..500).map(|number| format!("{}{number}", "n".repeat(number % 40))).collect();
    let mut order = KeyOrder::new(1, Vec::new());
    for name in &names {
        order.begin_line();
        for key in ["first", name] {
            let spelling = format!("\"{key}\":");
            let body = format!("{spelling}1{:64}", "");
            if order.guess(body.as_bytes().first_chunk().unwrap()).is_none() {
                order.learn(spelling.as_bytes(), KeyTarget::Server);
            }
        }
        order.end_line();
        assert!(order.orders.iter().all(|kept| kept.steps.len() <= order.steps_max));
    }
}
