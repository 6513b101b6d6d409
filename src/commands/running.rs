//! The running server, as commands reach it through its admin address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};

use crate::clickhouse::client::provide_tls;
use crate::clickhouse::trust::{Trust, trusting};
use crate::config::{ConfigError, Settings};

/// A client of the admin address that the settings name.
pub(super) struct RunningServer {
    http: Client,
    address: SocketAddr,
    password: Option<String>,
}

impl RunningServer {
    /// Prepares a client; does not connect yet. Each request may take `timeout`.
    ///
    /// # Errors
    ///
    /// If `--admin-password-file` can't be read, or the client can't be set up.
    pub(super) fn new(settings: &Settings, timeout: Duration) -> Result<Self, ConfigError> {
        provide_tls();
        let http = trusting!(Client::builder(), &Trust::nobody()).no_proxy().timeout(timeout).build();
        Ok(Self {
            http: http.map_err(|error| ConfigError(format!("the HTTP client can't be set up: {error}")))?,
            address: reachable(settings.admin_listen),
            password: settings.admin_password()?,
        })
    }

    /// The URL of a path, for messages.
    pub(super) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// The address.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to do about an answer with the status 401.
    pub(super) fn wants_password(&self) -> String {
        format!("the server at {} wants a password: give this command its --admin-password-file", self.address)
    }

    /// A GET of a path, with the password.
    pub(super) fn get(&self, target: &str) -> RequestBuilder {
        self.with_password(self.http.get(self.url(target)))
    }

    /// A POST to a path, with the password.
    pub(super) fn post(&self, target: &str) -> RequestBuilder {
        self.with_password(self.http.post(self.url(target)))
    }

    fn with_password(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.password {
            Some(password) => request.basic_auth("sluicegate", Some(password)),
            None => request,
        }
    }
}

/// Where this machine reaches a listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let mut address = listener;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
