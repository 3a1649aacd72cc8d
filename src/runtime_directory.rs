//! Where supervisors and clients meet: the directory of admin sockets, and the names in it.
//!
//! Works on names only, so that `zdr run` and its clients cannot disagree; never looks at the file system.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The directory: `$RUNTIME_DIRECTORY` (systemd.exec(5)), `/run/zdr` for root, `$XDG_RUNTIME_DIR/zdr`, or one below /tmp.
pub fn directory(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(several) = set("RUNTIME_DIRECTORY") {
        return std::env::split_paths(&several).next().unwrap_or_default();
    }
    match set("XDG_RUNTIME_DIR") {
        _ if uid == 0 => PathBuf::from("/run/zdr"),
        Some(base) => Path::new(&base).join("zdr"),
        None => PathBuf::from(format!("/tmp/zdr-{uid}")),
    }
}

/// The admin socket of the supervisor with this name.
pub fn admin_socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

/// The name of the supervisor whose admin socket this is.
pub fn name_of(path: &Path) -> Option<&str> {
    (path.extension() == Some(OsStr::new("sock"))).then(|| path.file_stem()?.to_str()).flatten()
}

/// Something that belongs to a supervisor and lies beside its admin socket.
pub fn beside(admin: &Path, what: &str) -> PathBuf {
    let mut path = admin.as_os_str().to_owned();
    path.push(".");
    path.push(what);
    PathBuf::from(path)
}

/// The folders, best first, for the notify sockets of servers that run as another user than their zdr. That user cannot
/// enter the directory of the admin sockets, and is not to.
pub fn notify_folders(uid: u32) -> [PathBuf; 2] {
    [PathBuf::from("/run/zdr.notify"), PathBuf::from(format!("/tmp/zdr.notify-{uid}"))]
}

/// What such sockets of one supervisor are called: a short name of its admin socket's path, which is its alone (FNV-1a,
/// 64 bits).
pub fn notify_name(admin: &Path) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = admin.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{hash:016x}")
}

/// Checks a name.
pub fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    match name {
        "" => Err("the name is empty".to_owned()),
        _ if name.starts_with('.') => Err(format!("the name `{name}` starts with a dot")),
        _ if name.len() > 48 => Err("the name is longer than 48 bytes".to_owned()),
        _ if name.chars().all(good) => Ok(()),
        _ => Err(format!("the name `{name}` may have letters, digits, `-`, `_`, `.` and `@` only")),
    }
}

/// The name of a supervisor that was given none: its program's.
pub fn name_for(command: &OsStr) -> String {
    let program = Path::new(command).file_name().and_then(OsStr::to_str).unwrap_or("zdr");
    let name: String =
        program.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let name: String = name.trim_start_matches('.').chars().take(48).collect();
    if name.is_empty() { "zdr".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_follows_the_surroundings() {
        let with = |set: &[(&str, &str)], uid| {
            let set: Vec<(String, OsString)> =
                set.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
            directory(|name| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()), uid)
        };
        assert_eq!(with(&[("RUNTIME_DIRECTORY", "/run/app:/run/b")], 0), Path::new("/run/app"));
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "/run/user/5")], 0), Path::new("/run/zdr"));
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "/run/user/5")], 5), Path::new("/run/user/5/zdr"));
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "")], 5), Path::new("/tmp/zdr-5"));
    }

    #[test]
    fn a_supervisor_is_called_like_its_program() {
        assert_eq!(name_for(OsStr::new("/usr/bin/gunicorn")), "gunicorn");
        assert_eq!(name_for(OsStr::new("./my server")), "my-server");
        assert_eq!(name_for(OsStr::new("..")), "zdr");
        assert!(check_name("app-1.blue").is_ok());
        for name in ["", ".hidden", "a/b", "a b", &"x".repeat(49)] {
            assert!(check_name(name).is_err());
        }
    }
}
