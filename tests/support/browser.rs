//! A real Chromium without a window, and the server of the pages that it opens.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Folder, PATIENCE};

/// Serves pages on an origin of its own, and takes what they report: the body of each POST.
pub struct Pages {
    address: SocketAddr,
    /// Each page by its path; its text is the body of an HTML document.
    pages: Arc<Mutex<BTreeMap<&'static str, String>>>,
    reports: Mutex<Receiver<String>>,
}

impl Pages {
    /// An origin without pages yet.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let (sender, reports) = channel();
        let known = pages.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (known, sender) = (known.clone(), sender.clone());
                thread::spawn(move || answer(&stream.unwrap(), &known, &sender));
            }
        });
        Self { address, pages, reports: Mutex::new(reports) }
    }

    pub fn put(&self, path: &'static str, page: String) {
        self.pages.lock().unwrap().insert(path, page);
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next report of a page.
    #[track_caller]
    pub fn report(&self) -> String {
        self.reports.lock().unwrap().recv_timeout(PATIENCE).expect("no page reports anything")
    }
}

/// Serves one connection. A browser opens some that it does not use.
fn answer(stream: &TcpStream, pages: &Mutex<BTreeMap<&'static str, String>>, sender: &Sender<String>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let length =
            lines.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let mut words = lines.first()?.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let page = match method {
            "POST" => {
                let _ = sender.send(String::from_utf8(body).unwrap());
                Some(String::new())
            }
            _ => pages.lock().unwrap().get(path).cloned(),
        };
        let status = if page.is_some() { "200 OK" } else { "404 Not Found" };
        let page = format!("<!doctype html>{}", page.unwrap_or_default());
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
        (&mut &*stream).write_all([head, page].concat().as_bytes()).ok()?;
    }
}

/// A running Chromium; ended with its value.
pub struct Browser {
    child: Child,
    _profile: Folder,
}

impl Browser {
    /// Opens a page.
    pub fn open(url: &str) -> Self {
        let profile = Folder::new();
        let child = Command::new("chromium")
            // The sandbox can't be had by root in a container; the pages are ours.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium is needed: install Debian's package chromium");
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own processes are in its group, which has no others.
        if let Some(group) = self.child.id().try_into().ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
