//! A page in a real Chromium, told what to do and asked what it shows through the DevTools protocol, over a
//! pipe.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::{Folder, PATIENCE, wait_for};

/// A tab of a browser of its own, which ends with it.
pub struct Tab {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    number: u64,
    /// What the console has shown, and what the page has thrown.
    problems: Vec<String>,
    _profile: Folder,
}

impl Tab {
    /// Opens a page.
    pub fn open(url: &str) -> Self {
        let profile = Folder::new();
        // Commands come on descriptor 3, and answers go to 4, each with a zero behind it.
        let mut child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null", "chromium"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh is there");
        let (commands, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || read_messages(output, |message| sender.send(message).is_ok()));
        let (session, problems) = (String::new(), Vec::new());
        let mut tab = Self { child, commands, messages, session, number: 0, problems, _profile: profile };
        let target = tab.tell("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = tab.tell("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        tab.session = attached["sessionId"].as_str().unwrap().to_owned();
        for part in ["Page", "Runtime", "Log", "Network"] {
            tab.tell(&format!("{part}.enable"), json!({}));
        }
        tab.tell("Page.navigate", json!({ "url": url }));
        tab
    }

    /// The value of an expression in the page; a promise is waited for.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.tell("Runtime.evaluate", parameters);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait_until(&mut self, expression: &str) {
        let tab = std::cell::RefCell::new(self);
        let seen = || tab.borrow_mut().value("document.body.innerText");
        wait_for(
            || format!("{expression}:\n{}", seen()),
            || (tab.borrow_mut().value(expression) == json!(true)).then_some(()),
        );
    }

    /// Shows the page in this size, light or dark.
    pub fn show(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.tell("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tell("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Presses a key, such as `Tab`.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.tell("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key }));
        }
    }

    /// Writes a picture of what is seen.
    pub fn picture(&mut self, file: &Path) {
        let picture = self.tell("Page.captureScreenshot", json!({ "format": "png" }));
        let data = picture["data"].as_str().unwrap();
        std::fs::write(file, base64::engine::general_purpose::STANDARD.decode(data).unwrap()).unwrap();
    }

    /// What the console has shown so far, and what the page has thrown.
    pub fn problems(&mut self) -> &[String] {
        self.value("0");
        &self.problems
    }

    /// Forgets these problems: what the page's browser says of a server that is away.
    pub fn forget_problems(&mut self) {
        self.value("0");
        self.problems.clear();
    }

    #[track_caller]
    fn tell(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.commands
            .write_all(format!("{command}\0").as_bytes())
            .expect("chromium is needed: install Debian's package chromium");
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            self.note(&message);
            if message["id"] == json!(self.number) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let shown = match message["method"].as_str() {
            Some("Runtime.consoleAPICalled") => &message["params"]["args"],
            Some("Runtime.exceptionThrown") => &message["params"]["exceptionDetails"],
            Some("Log.entryAdded") => &message["params"]["entry"],
            _ => return,
        };
        self.problems.push(shown.to_string());
    }
}

fn read_messages(output: impl Read, mut take: impl FnMut(Value) -> bool) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while output.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
        bytes.pop();
        let Ok(message) = serde_json::from_slice(&bytes) else { return };
        if !take(message) {
            return;
        }
        bytes.clear();
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // Its own processes are in its group, which has no others.
        if let Some(group) = self.child.id().try_into().ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
