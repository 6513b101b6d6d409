//! Which requests of the admin address are answered: not those that a page of another origin makes a
//! browser send, and with `--admin-password-file` only those that carry the password.

use std::net::SocketAddr;

use super::password::Password;
use super::{Page, browser, health, metrics};
use crate::http::{self, Head, Method, Status};

/// What a request has to fulfil.
pub struct Access {
    /// The address is reached from this machine only, and its user's browser is on this machine.
    is_loopback: bool,
    password: Option<Password>,
}

impl Access {
    /// The rules of the admin address `listen`.
    pub fn new(listen: SocketAddr, password: Option<&str>) -> Self {
        Self { is_loopback: listen.ip().to_canonical().is_loopback(), password: password.map(Password::new) }
    }

    /// The reply to a request that is refused, whatever its path; `None` if it is not refused.
    pub(super) fn refusal(&self, head: &Head<'_>) -> Option<Page> {
        // A name that its owner points here makes this address an origin of the owner's page (DNS
        // rebinding). Programs without a Host field are no browsers.
        if self.is_loopback && head.header("host").is_some_and(|host| !browser::is_fixed(host)) {
            let message = "On a loopback address, the Host of a request must be an IP address or localhost.";
            return Some(Page::fault(Status::Forbidden, "foreign_host", message));
        }
        let reads = matches!(head.method, Method::Get | Method::Head);
        if !reads && browser::is_cross_site(head) {
            let message = "A page of another origin may not change anything here.";
            return Some(Page::fault(Status::Forbidden, "cross_site", message));
        }
        let path = http::plain_path(head.path);
        let is_open = health::is_health(path.as_ref()) || path == metrics::PATH;
        if !is_open && !self.is_trusted(head) {
            let message = "This path takes the password of --admin-password-file, with any user name.";
            return Some(Page::fault(Status::Unauthorized, "unauthorized", message));
        }
        None
    }

    /// True if the request may see everything: it carries the password, or there is none.
    pub(super) fn is_trusted(&self, head: &Head<'_>) -> bool {
        self.password.as_ref().is_none_or(|password| password.is_in(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, NO_HEADERS, Parsed};

    fn status(access: &Access, request: &str) -> Option<u16> {
        let mut slots = NO_HEADERS;
        let limits = HeadLimits { head_bytes_max: 1 << 10, headers_max: 10 };
        match http::parse_head(request.as_bytes(), &limits, &mut slots) {
            Parsed::Done(head) => access.refusal(&head).map(|page| page.status.code()),
            _ => panic!("{request}"),
        }
    }

    #[test]
    fn a_foreign_host_is_refused_on_loopback_whatever_the_path() {
        for listen in ["127.0.0.1:9080", "[::1]:9080", "[::ffff:127.0.0.1]:9080", "127.8.0.1:1"] {
            let access = Access::new(listen.parse().unwrap(), None);
            for path in ["/livez", "/metrics", "/stats"] {
                let get = |host: &str| status(&access, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                for host in ["127.0.0.1:9080", "localhost", "LocalHost:9080", "[::1]:9080", "10.1.2.3"] {
                    assert_eq!(get(host), None, "{host}");
                }
                for host in ["rebound.example:9080", "localhost.example", "127.0.0.1.example"] {
                    assert_eq!(get(host), Some(403), "{host}");
                }
                assert_eq!(status(&access, &format!("GET {path} HTTP/1.0\r\n\r\n")), None, "no browser");
            }
        }
        let access = Access::new("0.0.0.0:9080".parse().unwrap(), None);
        assert_eq!(status(&access, "GET /stats HTTP/1.1\r\nHost: sluicegate.internal\r\n\r\n"), None);
    }

    #[test]
    fn with_a_password_only_health_and_metrics_are_open() {
        let access = Access::new("127.0.0.1:9080".parse().unwrap(), Some("pass"));
        let ask =
            |line: &str, field: &str| status(&access, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
        for path in ["/livez", "/readyz", "/healthz", "/health", "/ping", "/metrics", "/%6detrics"] {
            assert_eq!(ask(&format!("GET {path}"), ""), None, "{path}");
        }
        for line in ["GET /", "GET /stats", "GET /api/events", "POST /spool/requeue", "GET /nothing", "GET /Metrics"] {
            assert_eq!(ask(line, ""), Some(401), "{line}");
            assert_eq!(ask(line, "Authorization: Basic dXNlcjpwYXNz\r\n"), None, "{line}");
            assert_eq!(ask(line, "Authorization: Basic dXNlcjpwYXN0\r\n"), Some(401), "{line}: past");
            assert_eq!(ask(line, "Authorization: Basic dXNlcjo=\r\n"), Some(401), "{line}: empty");
            let twice = "Authorization: Basic dXNlcjpwYXNz\r\n".repeat(2);
            assert_eq!(ask(line, &twice), Some(401), "{line}: twice");
        }
    }
}
