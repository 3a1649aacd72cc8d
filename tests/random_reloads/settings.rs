//! Settings by chance, as a file would have them, and what can be wrong with the file.
//!
//! Two listeners are in all of them, under one name or another: those are under load.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::harness::{ZDR, free_port};

/// xorshift64: the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The addresses that may be listened on.
#[derive(Debug)]
pub struct Places {
    pub web: SocketAddr,
    pub path: PathBuf,
    pub others: Vec<String>,
    /// Somebody else has it.
    taken: SocketAddr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub address: String,
    options: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listeners: Vec<Listener>,
    pub instances: u64,
    surge: Option<usize>,
    apart: bool,
    /// The old generation is kept until the next change.
    pub keeps: bool,
    /// In the environment.
    pub release: usize,
    /// On the command line.
    pub work: usize,
}

/// What is wrong with a file, or with the server that it names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    UnknownKey,
    HalfWritten,
    AddressInUse,
    Exits,
    /// One of its instances does, if it has several.
    SecondExits,
    NotExecutable,
    NeverReady,
}

impl Places {
    pub fn of(folder: &Path, taken: SocketAddr) -> Self {
        let port = || format!("127.0.0.1:{}", free_port());
        let path = |name: &str| format!("unix:{}", folder.join(name).display());
        let others = vec![port(), port(), port(), path("other.sock"), path("third.sock")];
        Self { web: port().parse().unwrap(), path: folder.join("web.sock"), others, taken }
    }
}

impl Fault {
    pub fn random(random: &mut Random) -> Self {
        match random.below(24) {
            0 => Self::UnknownKey,
            1 => Self::HalfWritten,
            2 => Self::AddressInUse,
            3 => Self::Exits,
            4 => Self::SecondExits,
            5 => Self::NotExecutable,
            6 => Self::NeverReady,
            _ => Self::None,
        }
    }
}

impl Settings {
    /// Those with which it begins.
    pub fn plain(places: &Places) -> Self {
        let listener = |name: &str, address: String| Listener { name: name.to_owned(), address, options: "" };
        let path = format!("unix:{}", places.path.display());
        let listeners = vec![listener("web", places.web.to_string()), listener("path", path)];
        Self { listeners, instances: 1, surge: None, apart: false, keeps: false, release: 0, work: 1 }
    }

    /// Others than these, in some of what they say.
    pub fn random(random: &mut Random, places: &Places, before: &Self) -> Self {
        let mut settings = before.clone();
        for _ in 0..=random.below(3) {
            match random.below(8) {
                0..=2 => settings.listeners = listeners(random, places),
                3 => settings.instances = u64::try_from(1 + random.below(4)).unwrap(),
                4 => settings.surge = [None, Some(1), Some(2)][random.below(3)],
                5 => settings.apart = random.once_in(2),
                6 => settings.keeps = random.once_in(3),
                _ => settings.work = 1 + random.below(3),
            }
        }
        settings.release = random.below(1000);
        settings
    }

    /// The file.
    pub fn text(&self, fault: Fault, places: &Places) -> String {
        let Self { surge, apart, keeps, release, work, .. } = self;
        let work = format!("{work}ms");
        let mut command = vec![ZDR, "sample-server", "--work", &work];
        match fault {
            Fault::Exits => command.extend(["--bad", "exit:3"]),
            Fault::NeverReady => command.extend(["--bad", "hang"]),
            Fault::NotExecutable => command = vec!["/nowhere/server", "--work", &work],
            Fault::SecondExits => {
                let script = "[ $ZDR_INSTANCE = 2 ] && exit 3; exec \"$@\"";
                command = [&["/bin/sh", "-c", script, "sh"][..], &command].concat();
            }
            _ => {}
        }
        let mut listeners: Vec<String> =
            self.listeners.iter().map(|it| format!("{}={}{}", it.name, it.address, it.options)).collect();
        if fault == Fault::AddressInUse {
            listeners.push(format!("taken={}", places.taken));
        }
        let lines = [
            format!("listen = {listeners:?}"),
            format!("command = {command:?}"),
            format!("instances = {}", self.instances),
            format!("surge = {:?}", surge.map_or("all".to_owned(), |number| number.to_string())),
            format!("queue = {:?}", if *apart { "per-instance" } else { "shared" }),
            format!("bake-keep = {:?}", if *keeps { "1h" } else { "0s" }),
            format!("ready-timeout = {:?}", if fault == Fault::NeverReady { "150ms" } else { "20s" }),
            "bake = '0s'\ndrain-idle = '1s'\ndrain-timeout = '5s'\nmin-uptime = '0s'".to_owned(),
            match fault {
                Fault::UnknownKey => "instancse = 3".to_owned(),
                Fault::HalfWritten => "name = \"half wri".to_owned(),
                _ => String::new(),
            },
            format!("[env]\nRELEASE = '{release}'\n"),
        ];
        lines.join("\n")
    }
}

fn listeners(random: &mut Random, places: &Places) -> Vec<Listener> {
    let pick = |random: &mut Random, words: &[&'static str]| words[random.below(words.len())];
    let tcp = ["", "", ",backlog=200", ",nodelay=false"];
    let web = Listener {
        name: pick(random, &["web", "www", "main"]).to_owned(),
        address: places.web.to_string(),
        options: pick(random, &tcp),
    };
    let path = Listener {
        name: pick(random, &["path", "socket"]).to_owned(),
        address: format!("unix:{}", places.path.display()),
        options: pick(random, &["", ",mode=0600", ",mode=0666,backlog=300"]),
    };
    let mut listeners = vec![web, path];
    for (number, address) in places.others.iter().enumerate().filter(|_| random.once_in(3)).collect::<Vec<_>>() {
        let options = if address.starts_with("unix") { "" } else { pick(random, &tcp) };
        let name = format!("{}{number}", pick(random, &["a", "b"]));
        let at = random.below(listeners.len() + 1);
        listeners.insert(at, Listener { name, address: address.clone(), options });
    }
    listeners
}
