//! What the other files of this room are built on: atomics, queues, and how a thread sleeps.
//!
//! They take these from here and from nowhere else: `tests/shuttle.rs` puts a scheduler's own in
//! their place and runs the very same files in every order.

pub(super) use std::sync::atomic;
pub(super) use std::thread::{Thread, current, park_timeout};

pub(super) use crossbeam::queue::ArrayQueue;
