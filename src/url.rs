//! The address of a health question as an operator writes it: `http://host:port/path`, `https://…`
//! or `http://unix:/run/x.sock:/path`.
//!
//! Pure text: it never resolves a name, opens a socket or looks at a file.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// What is spoken on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP inside TLS.
    Https,
}

impl Scheme {
    /// The port that is meant when none is written.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A checked address: whom to connect to, and what to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// A name or a literal address, IPv6 without brackets; `localhost` for a Unix socket.
    pub host: String,
    /// The written port or the scheme's own; without meaning for a Unix socket.
    pub port: u16,
    /// The socket to connect to instead of host and port; always absolute.
    pub unix_path: Option<PathBuf>,
    /// What stands in the request line; always begins with `/`.
    pub path_and_query: String,
}

/// The longest socket path: `sun_path` holds 108 bytes with the closing NUL (unix(7)).
const UNIX_PATH_MAX: usize = 107;

impl Url {
    /// Reads what an operator wrote; the error is one sentence with the way out.
    ///
    /// # Errors
    /// When the text is not an address this module knows, or carries something a probe cannot use.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text)?;
        if rest.contains('#') {
            return Err("a fragment is never sent to a server; take out the part from # on".to_owned());
        }
        if let Some(socket) = rest.strip_prefix("unix:").filter(|after| after.starts_with('/')) {
            return parse_unix(scheme, socket);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("user and password cannot be sent by a probe; take out the part up to @".to_owned());
        }
        let (host, port) = split_port(authority)?;
        let port = port.map_or(Ok(scheme.default_port()), parse_port)?;
        Ok(Self { scheme, host: check_host(host)?, port, unix_path: None, path_and_query: check_path(path)? })
    }

    /// What the Host header says: IPv6 in brackets, the scheme's own port left out.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.unix_path.is_some() || self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix_path {
            Some(path) => {
                write!(f, "{}://unix:{}:{}", self.scheme, path.display(), self.path_and_query)
            }
            None => write!(f, "{}://{}{}", self.scheme, self.authority(), self.path_and_query),
        }
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("`{}` does not begin with http:// or https://; write it in front", without_login(text)));
    };
    if scheme.eq_ignore_ascii_case("http") {
        Ok((Scheme::Http, rest))
    } else if scheme.eq_ignore_ascii_case("https") {
        Ok((Scheme::Https, rest))
    } else {
        Err(format!("scheme `{scheme}` is not known; use http or https"))
    }
}

/// What may be repeated in an error: a password never is.
fn without_login(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, after)| after)
}

fn parse_unix(scheme: Scheme, text: &str) -> Result<Url, String> {
    if scheme == Scheme::Https {
        return Err("TLS is not spoken over a Unix socket; use http://unix:".to_owned());
    }
    let (socket, path) = text.split_once(':').unwrap_or((text, ""));
    if socket.contains('?') {
        return Err("the query stands before the request path; write unix:/socket:/path?query".to_owned());
    }
    if socket.ends_with('/') {
        return Err(format!("`{socket}` is a directory, not a Unix socket; write the whole path of the socket"));
    }
    if socket.contains('\0') {
        return Err("the path of a Unix socket cannot hold a NUL; take it out".to_owned());
    }
    if socket.len() > UNIX_PATH_MAX {
        return Err(format!("the Unix socket's path has {} bytes; use one of at most {UNIX_PATH_MAX}", socket.len()));
    }
    if !path.is_empty() && !path.starts_with(['/', '?']) {
        return Err(format!("`{path}` after the Unix socket does not begin with /; write unix:{socket}:/{path}"));
    }
    Ok(Url {
        scheme,
        host: "localhost".to_owned(),
        port: scheme.default_port(),
        unix_path: Some(PathBuf::from(socket)),
        path_and_query: check_path(path)?,
    })
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if !authority.starts_with('[') {
        return match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                Err(format!("`{authority}` has more than one colon; write an IPv6 address in brackets, as in [::1]:80"))
            }
            Some(("unix", port)) if port.parse::<u64>().is_err() => {
                Err("the path of a Unix socket is not absolute; write http://unix:/run/x.sock:/path".to_owned())
            }
            Some((host, port)) => Ok((host, Some(port))),
            None => Ok((authority, None)),
        };
    }
    let Some(end) = authority.find(']') else {
        return Err(format!("`{authority}` has no closing bracket; write it as in [::1]:80"));
    };
    let (host, after) = authority.split_at(end + 1);
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(format!("`{after}` after the bracket is not a port; write it as in [::1]:80")),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    // `u16::from_str` takes a plus sign, which no browser and no curl does.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ if text.is_empty() => Err("the port after the colon is missing; write one or take out the colon".to_owned()),
        _ => Err(format!("port `{text}` is not a number from 1 to 65535; write one that is")),
    }
}

fn check_host(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("the host is missing; write one, as in http://127.0.0.1:8080/health".to_owned());
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inner.parse::<Ipv6Addr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(format!("`{inner}` is not an IPv6 address; write one without a zone, as in [::1]")),
        };
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(format!(
            "`{host}` is not a host name; use letters, digits, dots and hyphens (punycode for others)"
        ));
    }
    let only_numbers = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if only_numbers && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` is not an IPv4 address; write all four numbers, as in 127.0.0.1"));
    }
    Ok(host.to_owned())
}

fn check_path(path: &str) -> Result<String, String> {
    // Exactly what RFC 3986 keeps out; sent raw, a space would even end the request line.
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c)) {
        return Err(format!("{bad:?} cannot stand in a path; write it percent-encoded"));
    }
    Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

#[cfg(test)]
mod tests;
