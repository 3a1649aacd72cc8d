//! A real Chromium that looks at the dashboard, and pages that are open in it.
//!
//! Knows nothing of what a page should show.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};

use crate::harness::DEADLINE;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// One browser for all of these tests. It ends when nobody can order anything any more, which is at the end of this process.
struct Browser {
    orders: Mutex<ChildStdin>,
    /// Who waits for an answer, by the number of the page.
    waiting: Mutex<HashMap<u64, Sender<Value>>>,
    opened: AtomicU64,
}

impl Browser {
    fn shared() -> &'static Self {
        static ONE: LazyLock<Browser> = LazyLock::new(|| {
            let modules = format!("{ROOT}/target/dashboard");
            assert!(Path::new(&modules).join("node_modules").exists(), "run tests/dashboard/install first");
            let mut browser = Command::new("node")
                .arg(format!("{ROOT}/tests/dashboard/browser.mjs"))
                .arg(modules)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("node is there");
            let answers = BufReader::new(browser.stdout.take().unwrap());
            let orders = Mutex::new(browser.stdin.take().unwrap());
            std::thread::spawn(move || {
                Browser::shared().hand_out(answers);
                browser.wait()
            });
            Browser { orders, waiting: Mutex::default(), opened: AtomicU64::new(0) }
        });
        &ONE
    }

    fn hand_out(&self, answers: impl BufRead) {
        for line in answers.lines().map_while(Result::ok) {
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            let waiting = answer["page"].as_u64().and_then(|page| self.waiting.lock().unwrap().remove(&page));
            waiting.map(|waiting| waiting.send(answer));
        }
        // Nobody waits for a browser that has ended.
        self.waiting.lock().unwrap().clear();
    }
}

/// A page that is open in the browser.
pub(super) struct Page(u64);

impl Page {
    pub(super) fn open(address: SocketAddr) -> Self {
        let mut page = Self(Browser::shared().opened.fetch_add(1, Ordering::Relaxed));
        page.order(&json!({ "order": "open", "url": format!("http://{address}/") }));
        page.wait("the page is live", "link === 'live' && document.title.includes(':')");
        page
    }

    /// Gives an order to the browser, and has its answer.
    #[track_caller]
    pub(super) fn order(&mut self, order: &Value) -> Value {
        let answer = self.try_order(order).expect("the browser answers");
        assert!(answer.get("error").is_none(), "{order}: {}", answer["error"].as_str().unwrap_or_default());
        answer["value"].clone()
    }

    pub(super) fn try_order(&self, order: &Value) -> Option<Value> {
        let browser = Browser::shared();
        let (reply, answer) = channel();
        browser.waiting.lock().ok()?.insert(self.0, reply);
        let mut order = order.clone();
        order["page"] = self.0.into();
        writeln!(browser.orders.lock().ok()?, "{order}").ok()?;
        answer.recv_timeout(DEADLINE * 2).ok()
    }

    #[track_caller]
    pub(super) fn evaluate(&mut self, script: &str) -> Value {
        self.order(&json!({ "order": "evaluate", "script": script }))
    }

    /// Waits until this is true in the page.
    #[track_caller]
    pub(super) fn wait(&mut self, what: &str, script: &str) -> Value {
        self.order(&json!({ "order": "wait", "script": format!("/* {what} */ {script}") }))
    }

    /// The visible text of an element.
    #[track_caller]
    pub(super) fn text(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}")).to_owned()
    }

    /// Waits until an element shows this text.
    #[track_caller]
    pub(super) fn shows(&mut self, selector: &str, text: &str) {
        let script = format!("document.querySelector({})?.innerText.includes({})", json!(selector), json!(text));
        self.wait(&format!("{selector} shows {text}"), &script);
    }

    pub(super) fn look(&mut self, width: u32, scheme: &str) {
        self.order(&json!({ "order": "look", "width": width, "scheme": scheme }));
    }

    /// What the browser had to complain of since the last time.
    pub(super) fn complaints(&mut self) -> Vec<String> {
        serde_json::from_value(self.order(&json!({ "order": "complaints" }))).unwrap()
    }

    /// Nothing was complained of, and nobody but zdr was asked for anything.
    #[track_caller]
    pub(super) fn is_well(&mut self, address: SocketAddr) {
        assert_eq!(self.complaints(), [""; 0]);
        let addresses = self.order(&json!({ "order": "addresses" }));
        let others =
            addresses.as_array().unwrap().iter().filter(|at| **at != "data:" && **at != format!("http://{address}"));
        assert_eq!(others.count(), 0, "{addresses}");
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Where the browser has ended, the page is closed.
        let _ = self.try_order(&json!({ "order": "close" }));
    }
}
