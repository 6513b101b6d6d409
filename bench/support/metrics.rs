//! What a server says about itself at its admin address.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long the rows of a turn may take to be inserted.
const PATIENCE: Duration = Duration::from_secs(120);

/// `/metrics` at one moment.
pub struct Metrics(String);

impl Metrics {
    /// Asks for them.
    pub fn of(admin: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(Self(reply))
    }

    /// The value of a series, named as it stands there, with its labels.
    pub fn value(&self, series: &str) -> Result<f64, Box<dyn Error>> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("the server says nothing about {series}"))?.trim().parse()?)
    }
}

/// Waits until the server has inserted everything.
pub fn until_inserted(admin: SocketAddr) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while Metrics::of(admin)?.value("sluicegate_events_spooled")? > 0.0 {
        if begun.elapsed() > PATIENCE {
            return Err("ClickHouse does not keep up".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
