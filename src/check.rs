//! What can be known of the settings before anything is started: tried here, and everything that is wrong told.
//!
//! Changes nothing: what is bound is let go of at once, and what a zdr with these settings has already is left alone.

use std::fs;
use std::path::Path;
use std::slice::from_ref;

use crate::address::Listener;
use crate::client;
use crate::config::{Config, Fault};
use crate::edges::admin::AdminAddress;
use crate::edges::environment_files;
use crate::edges::executable;
use crate::edges::identity::Identity;
use crate::edges::limits;
use crate::edges::listeners::{ListenError, Listeners};
use crate::edges::processes::tree;
use crate::edges::text_file::words;

/// Everything that would go wrong.
pub fn faults(config: &Config) -> Vec<Fault> {
    let mut faults = process(config);
    faults.extend(places(config));
    faults.extend(addresses(config));
    faults
}

/// Its directory, user, environment, limits and executable file.
fn process(config: &Config) -> Vec<Fault> {
    let process = &config.process;
    let mut faults = Vec::new();
    let identity = Identity::of(process).map_err(|fault| faults.push(fault)).ok().flatten();
    let directory = process.directory.as_deref().unwrap_or(Path::new("."));
    let entered = executable::enter(directory, identity.as_ref());
    if let Err(error) = &entered {
        let (directory, why) = (directory.display(), words(error));
        let which = if process.user.is_some() { "one that the user of --user may enter, by" } else { "another" };
        let sentence = format!("cannot enter the working directory {directory}: {why}; choose {which} --chdir");
        faults.push(Fault::of("chdir", sentence));
    }
    let mut variables = Vec::new();
    for (nth, file) in process.environment_files.iter().enumerate() {
        match environment_files::read(from_ref(file)) {
            Ok(read) => variables.extend(read),
            Err(error) => faults.push(Fault::of_value("env-file", nth, error.to_string())),
        }
    }
    faults.extend(limits::faults(&process.limits));
    // Without its directory, which may be on the way to it, it is not there either.
    if entered.is_ok() {
        let found = executable::find(config, &variables, identity.as_ref());
        faults.extend(found.err().map(|error| Fault::of("command", error.to_string())));
    }
    faults
}

/// Files and directories of zdr's own.
fn places(config: &Config) -> Vec<Fault> {
    let admin = AdminAddress::may_be(&admin(config)).err();
    let admin = admin.map(|error| Fault::of("admin", error.to_string()));
    let watched = config.watch.iter().enumerate().filter_map(|(nth, path)| {
        let error = fs::metadata(path).err()?;
        let sentence = format!("cannot watch {}: {}; choose another --watch", path.display(), words(&error));
        Some(Fault::of_value("watch", nth, sentence))
    });
    admin.into_iter().chain(watched).collect()
}

fn admin(config: &Config) -> std::path::PathBuf {
    config.admin.clone().unwrap_or_else(|| client::admin_of(&config.name))
}

/// All are held until the last was tried, so that two of the same settings find each other.
fn addresses(config: &Config) -> Vec<Fault> {
    let ours = client::process_at(&admin(config)).map(tree).unwrap_or_default();
    let listeners = config.listeners.iter().enumerate().map(|(nth, listener)| ("listen", nth, listener));
    let health = config.health.iter().enumerate().map(|(nth, listener)| ("health", nth, listener));
    let (mut held, mut faults) = (Vec::new(), Vec::new());
    for (option, nth, listener) in listeners.chain(health) {
        match Listeners::bind(from_ref(listener)) {
            Ok(listeners) => held.push(listeners),
            Err(ListenError::InUse { holder: Some((pid, _)), .. }) if ours.contains(&pid) => {}
            Err(error) => faults.push(Fault::of_value(option, nth, said(&error, listener))),
        }
    }
    faults
}

fn said(error: &ListenError, listener: &Listener) -> String {
    match error {
        ListenError::InUse { holder: Some((pid, _)), .. } if pid.unsigned_abs() == std::process::id() => {
            format!("{} and another address of these settings cannot both be had; choose another", listener.address)
        }
        other => other.to_string(),
    }
}
