//! Tests of what one turn does, and what it leaves for the next: the test runs the turns.

use super::*;
use crate::limits::{PIPELINED_REQUESTS_MAX, TURN_ARRIVALS_MAX, TURN_TIME_OUTS_MAX, TURN_WORK_MAX, VISIT_REQUESTS_MAX};

/// A worker that does nothing by itself.
struct Still {
    worker: Worker,
    address: SocketAddr,
}

impl Still {
    fn start(change: impl FnOnce(&mut Shared)) -> Self {
        let (worker, address) = worker(Duration::from_secs(60), change);
        Self { worker, address }
    }

    /// Runs turns until `is_so`.
    fn until(&mut self, mut is_so: impl FnMut(&mut Worker) -> bool) {
        let mut events = Events::with_capacity(1024);
        while !is_so(&mut self.worker) {
            self.worker.turn(&mut events).unwrap();
        }
    }

    /// So many connections that were accepted and have nothing left to do.
    fn connect(&mut self, count: usize) -> Vec<TcpStream> {
        let open = self.worker.open + count;
        let clients = (0..count).map(|_| TcpStream::connect(self.address).unwrap()).collect();
        self.until(|worker| worker.open == open && worker.visits.is_empty());
        // That they may be written to is news as well.
        let mut events = Events::with_capacity(1024);
        loop {
            self.worker.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            if events.is_empty() {
                return clients;
            }
            self.worker.serve(&events);
        }
    }

    /// Waits until so many connections have news, without a turn.
    fn notice(&mut self, count: usize) {
        let mut events = Events::with_capacity(1024);
        let queued = |worker: &Worker| worker.slots.iter().flatten().filter(|slot| slot.queued).count();
        while queued(&self.worker) < count {
            self.worker.poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            events.iter().for_each(|event| self.worker.notice(event));
        }
    }

    /// Waits until the connection that has come last has news, without a turn.
    fn notice_last(&mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.worker.slots.iter().flatten().last().is_some_and(|slot| slot.queued) {
            self.worker.poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            events.iter().for_each(|event| self.worker.notice(event));
        }
    }

    /// A turn without further news.
    fn turn(&mut self) {
        self.worker.serve(&Events::with_capacity(1));
    }
}

/// How many replies were sent.
fn sent(worker: &Worker) -> usize {
    worker.metrics.replies.sent().map(|(_, count)| count as usize).sum()
}

/// How many replies have arrived, without waiting for more.
fn arrived(client: &mut TcpStream) -> usize {
    client.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    client.set_nonblocking(false).unwrap();
    String::from_utf8(bytes).unwrap().matches("HTTP/1.1 ").count()
}

#[test]
fn a_connection_with_many_requests_is_served_some_and_then_the_others_have_their_turn() {
    let mut still = Still::start(|_| {});
    let clients = &mut still.connect(2)[..];
    let [greedy, modest] = clients else { panic!() };
    for request in [HEALTH, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"] {
        greedy.write_all(&request.repeat(PIPELINED_REQUESTS_MAX)).unwrap();
        still.notice(1);
        modest.write_all(HEALTH).unwrap();
        still.notice(2);
        still.turn();
        assert_eq!((arrived(greedy), arrived(modest)), (VISIT_REQUESTS_MAX, 1));
        // Nothing more comes from the socket.
        let mut rest = 0;
        still.until(|_| {
            rest += arrived(greedy);
            rest == PIPELINED_REQUESTS_MAX - VISIT_REQUESTS_MAX
        });
    }
}

#[test]
fn a_request_that_comes_while_much_is_left_to_do_is_served_in_the_next_turn() {
    let mut still = Still::start(|_| {});
    let mut greedy = still.connect(20);
    let mut modest = still.connect(1).remove(0);
    for client in &mut greedy {
        client.write_all(&HEALTH.repeat(5 * PIPELINED_REQUESTS_MAX)).unwrap();
    }
    still.notice(20);
    let all = 20 * 5 * PIPELINED_REQUESTS_MAX;
    // Each of them has had a turn.
    let mut had = [false; 20];
    still.until(|_| {
        had.iter_mut().zip(&mut greedy).for_each(|(had, client)| *had |= arrived(client) > 0);
        had == [true; 20]
    });
    let mut turns = 0;
    // Those are not forgotten while others have news in each turn.
    while sent(&still.worker) < all {
        modest.write_all(HEALTH).unwrap();
        still.notice_last();
        still.turn();
        assert_eq!(arrived(&mut modest), 1, "in turn {turns}");
        turns += 1;
        assert!(turns < all);
    }
    assert!(turns > 10, "everything was served in {turns} turns");
}

#[test]
fn news_of_many_connections_are_more_than_one_turn_and_none_is_lost() {
    let mut still = Still::start(|_| {});
    let mut clients = still.connect(100);
    for client in &mut clients {
        client.write_all(HEALTH).unwrap();
    }
    still.notice(100);
    still.turn();
    let mut replies: usize = clients.iter_mut().map(arrived).sum();
    assert_eq!(replies, TURN_WORK_MAX / 2, "a visit and a request count as two");
    still.until(|_| {
        replies += clients.iter_mut().map(arrived).sum::<usize>();
        replies == 100
    });
}

#[test]
fn connections_that_come_at_once_are_admitted_over_several_turns() {
    let mut still = Still::start(|_| {});
    let clients: Vec<TcpStream> =
        (0..4 * TURN_ARRIVALS_MAX).map(|_| TcpStream::connect(still.address).unwrap()).collect();
    let mut before = 0;
    still.until(|worker| {
        assert!(worker.open <= before + TURN_ARRIVALS_MAX, "{} connections after {before}", worker.open);
        before = worker.open;
        worker.open == clients.len()
    });
}

#[test]
fn the_time_of_many_connections_ends_over_several_turns() {
    let mut still = Still::start(|shared| {
        shared.timeouts.head = Duration::from_millis(500);
        shared.budget = ByteBudget::new(BudgetLimits { max: 256 << 20, request_max: 8 << 20 });
    });
    let mut clients = still.connect(5 * TURN_TIME_OUTS_MAX);
    for client in &mut clients {
        client.write_all(b"GET /hea").unwrap();
    }
    let mut before = 0;
    still.until(|worker| {
        let replies = sent(worker);
        assert!(replies <= before + TURN_TIME_OUTS_MAX, "{replies} replies after {before}");
        before = replies;
        replies == clients.len()
    });
    assert!(clients.iter_mut().all(|client| status(client) == 408));
}
