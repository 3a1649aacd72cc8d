//! The life of the listeners: which of them a generation will have, what becomes of their names and options, and when they
//! are closed.
//!
//! Nothing that serves is touched before the generation that asked for the change is steered to, so that one that fails
//! has changed nothing.

use std::io;
use std::mem;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use tracing::info;

use super::lane::{Lane, Way, port};
use super::path::know_owners;
use super::{ListenError, Listeners, make};
use crate::address::{Address, Listener, Options};
use crate::edges::kernel::sockopt as kernel;
use crate::supervisor::Generation;

/// What a generation was prepared with.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// The listeners by the numbers of their lanes, in the order in which it is lent them.
    listeners: Vec<(usize, Listener)>,
    /// They were listed; else they are those of the one before.
    listed: bool,
}

impl Asked {
    /// One of them, as it is called and made for this generation.
    pub(super) fn get(&self, number: usize) -> Option<&Listener> {
        self.listeners.iter().find(|(other, _)| *other == number).map(|(_, listener)| listener)
    }

    fn position(&self, number: usize) -> usize {
        self.listeners.iter().position(|(other, _)| *other == number).unwrap_or(usize::MAX)
    }
}

impl Listeners {
    /// Says which listeners a generation will have: those in the list, or those of the one before. What is new is bound; if
    /// that fails, nothing has changed. The rest of what changes does so when the generation is first steered to. What
    /// cannot change is told.
    pub fn prepare(&mut self, generation: Generation, asked: Option<&[Listener]>) -> Result<Vec<String>, ListenError> {
        let Some(asked) = asked else {
            self.asked.insert(generation, self.there(|lane| lane.kept));
            return Ok(Vec::new());
        };
        let (mut listeners, mut added, mut told) = (Vec::<(usize, Listener)>::new(), Vec::new(), Vec::new());
        for listener in asked {
            let Some(lane) = self.lanes.iter().find(|lane| lane.is_at(listener)) else {
                let beside = added.iter().filter(|lane: &&Lane| lane.port() == port(listener));
                let ours = beside.flat_map(Lane::inodes).chain(self.inodes_on(port(listener))).collect::<Vec<u64>>();
                let lane = Lane::bind(self.next + added.len(), listener, &ours)?;
                listeners.push((lane.number, lane.listener.clone()));
                added.push(lane);
                continue;
            };
            if let Some((_, other)) = listeners.iter().find(|(number, _)| *number == lane.number) {
                let why = format!("listener `{}` is there already; choose another address", other.name);
                return Err(ListenError::socket(listener, io::Error::other(why)));
            }
            know_owners(listener)?;
            let (changed, stays) = lane.changed(listener);
            told.extend(stays);
            listeners.push((lane.number, changed));
        }
        let is_left = |lane: &&Lane| lane.outlives && !listeners.iter().any(|(number, _)| *number == lane.number);
        told.extend(self.lanes.iter().filter(is_left).map(|lane| {
            let Listener { name, address, .. } = &lane.listener;
            format!(
                "listener `{name}`: who comes to {address} waits for nobody until whoever started zdr with it closes it"
            )
        }));
        for lane in added {
            info!(name = lane.listener.name, address = %lane.listener.address, "listening");
            self.add(lane);
        }
        self.asked.insert(generation, Asked { listeners, listed: true });
        Ok(told)
    }

    /// A generation will have the listeners of another, also those that the front does not have: it is to finish what waits
    /// there. For one that only paused them, those are the front's and whatever it paused.
    pub(super) fn prepare_like(&mut self, generation: Generation, dead: Generation) {
        let its = self.asked.get(&dead).cloned();
        self.asked.insert(generation, its.unwrap_or_else(|| self.there(|lane| lane.kept || lane.is_of(dead))));
    }

    /// Those that were not listed for anybody, but are there.
    fn there(&self, wanted: impl Fn(&Lane) -> bool) -> Asked {
        let there = self.lanes.iter().filter(|lane| !lane.captured && wanted(lane));
        let listeners = there.map(|lane| (lane.number, lane.listener.clone())).collect();
        Asked { listeners, listed: false }
    }

    /// True where this generation is lent this listener.
    pub(super) fn is_asked(&self, generation: Generation, number: usize) -> bool {
        self.asked.get(&generation).is_some_and(|asked| asked.get(number).is_some())
    }

    /// What a generation has, in its own order and as it calls it.
    pub(super) fn lanes_of(&self, generation: Generation) -> Vec<(&Lane, &Listener)> {
        let asked = self.asked.get(&generation);
        let mut its: Vec<&Lane> = self.lanes.iter().filter(|lane| lane.is_of(generation)).collect();
        its.sort_by_key(|lane| asked.map(|asked| asked.position(lane.number)));
        let called = |lane: &'_ Lane| asked.and_then(|asked| asked.get(lane.number));
        its.into_iter().map(|lane| (lane, called(lane).unwrap_or(&lane.listener))).collect()
    }

    /// The listeners are from here on as the front has asked for them.
    pub(super) fn take_on(&mut self) -> io::Result<()> {
        let Some(asked) = self.front_generation().and_then(|front| self.asked.get(&front)) else { return Ok(()) };
        let mut taken = Ok(());
        for lane in &mut self.lanes {
            if let Some(listener) = asked.get(lane.number) {
                taken = lane.take_on(listener).and(taken);
            }
        }
        self.lanes.sort_by_key(|lane| asked.position(lane.number));
        taken
    }

    /// Those of the front stay when it dies, so that connections wait for the next. A server that binds by itself does so
    /// bit by bit: until it has bound something, those of the one before stay.
    pub(super) fn keep(&mut self) {
        let Some(front) = self.front_generation() else { return };
        let listed = self.asked.get(&front).is_some_and(|asked| asked.listed);
        for captured in [false, true] {
            let has_any = self.lanes.iter().any(|lane| lane.captured == captured && lane.is_of(front));
            if has_any || listed && !captured {
                let alike = self.lanes.iter_mut().filter(|lane| lane.captured == captured);
                alike.for_each(|lane| lane.kept = lane.is_of(front));
            }
        }
    }

    /// What no living generation has, nor the front had, goes.
    pub(super) fn close_unclaimed(&mut self) {
        let mut lanes = mem::take(&mut self.lanes);
        lanes.retain(|lane| {
            let stays = lane.kept || self.is_wanted(lane) || !lane.claims.is_empty();
            if !stays {
                info!(address = %lane.listener.address, "nobody listens there any more");
            }
            stays
        });
        self.lanes = lanes;
    }

    /// A generation was prepared with it.
    pub(super) fn is_wanted(&self, lane: &Lane) -> bool {
        self.asked.values().any(|asked| asked.get(lane.number).is_some())
    }
}

impl Lane {
    /// True where this listener is meant. One whose port the kernel chooses is known by its name.
    fn is_at(&self, listener: &Listener) -> bool {
        match port(listener) {
            Some(0) => self.asked == listener.address && self.listener.name == listener.name,
            _ => self.asked == listener.address || self.listener.address == listener.address,
        }
    }

    /// What is asked for, as far as it can be had on bound sockets, and what stays as it is.
    fn changed(&self, listener: &Listener) -> (Listener, Vec<String>) {
        let mut changed = Listener { address: self.listener.address.clone(), ..listener.clone() };
        let mut told = Vec::new();
        let (old, new) = (&self.listener.options, &mut changed.options);
        let is_v6 = self.listener.address.socket().is_some_and(|socket| socket.is_ipv6());
        if is_v6 && old.v6only != new.v6only {
            let why = "because the kernel does not change it on bound sockets (IPV6_V6ONLY, ipv6(7))";
            told.push(format!("listener `{}`: v6only stays as it is until zdr is restarted, {why}", listener.name));
        }
        new.v6only = old.v6only;
        for (key, is_left) in [
            ("mode", old.mode.is_some() && new.mode.is_none()),
            ("owner", old.owner.is_some() && new.owner.is_none()),
            ("group", old.group.is_some() && new.group.is_none()),
        ] {
            if is_left {
                let why = "because no other is asked for";
                told.push(format!("listener `{}`: {key} stays as it is, {why}; say `{key}=…`", listener.name));
            }
        }
        new.mode = new.mode.or(old.mode);
        new.owner = new.owner.take().or_else(|| old.owner.clone());
        new.group = new.group.take().or_else(|| old.group.clone());
        (changed, told)
    }

    /// It is called and made like this from here on.
    fn take_on(&mut self, asked: &Listener) -> io::Result<()> {
        let old = mem::replace(&mut self.listener, asked.clone()).options;
        self.captured = false;
        let change = || {
            self.set_options(&old)?;
            let new = &self.listener.options;
            match &self.way {
                Way::Named(named) if (&old.mode, &old.owner, &old.group) != (&new.mode, &new.owner, &new.group) => {
                    named.set_rights(&self.listener)
                }
                _ => Ok(()),
            }
        };
        change().map_err(|error| io::Error::other(format!("{}: {error}", asked.address)))
    }

    /// Those that differ from the old, on every socket. Blocking mode is set when a socket is lent.
    fn set_options(&self, old: &Options) -> io::Result<()> {
        let (listener, new) = (&self.listener, &self.listener.options);
        let is_tcp = matches!(listener.address, Address::Tcp(_));
        for socket in self.open() {
            if old.backlog != new.backlog {
                make::listen_again(listener, socket)?;
            }
            if is_tcp && old.nodelay != new.nodelay {
                setsockopt(&socket, sockopt::TcpNoDelay, &new.nodelay)?;
            }
            if is_tcp && old.defer_accept != new.defer_accept {
                make::set_defer_accept(socket.as_fd(), new.defer_accept)?;
            }
            if listener.address.socket().is_some() && old.freebind != new.freebind {
                kernel::set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_FREEBIND, new.freebind.into())?;
            }
        }
        Ok(())
    }
}
