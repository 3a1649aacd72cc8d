//! Listener addresses as people write them: `web=tcp://127.0.0.1:8080,backlog=512`.
//!
//! Parses and prints, nothing else: it never looks at the machine, so an address that parses may still be impossible here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The longest path that fits in `sockaddr_un` with its final zero (unix(7)).
pub const LONGEST_UNIX_PATH: usize = 107;

/// An address zdr listens on, with its name and its socket options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What LISTEN_FDNAMES, placeholders and messages call it.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// How its sockets are made.
    pub options: Options,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// UDP; port 0 lets the kernel choose.
    Udp(SocketAddr),
    /// A Unix stream socket in the file system.
    Unix(PathBuf),
    /// A Unix stream socket in the abstract namespace, without the leading zero byte.
    Abstract(String),
}

/// The keys behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a socket option of its own")]
pub struct Options {
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// TCP_NODELAY, inherited by accepted connections (kernel: `sk_clone_lock`).
    pub nodelay: bool,
    /// IPV6_V6ONLY: `[::]` takes no IPv4 clients.
    pub v6only: bool,
    /// IP_FREEBIND: the address need not exist yet.
    pub freebind: bool,
    /// O_NONBLOCK on the socket that is lent; None leaves it blocking.
    pub nonblocking: bool,
    /// TCP_DEFER_ACCEPT in seconds: the server is woken when data has come.
    pub defer_accept: Option<u32>,
    /// Permission bits of a Unix path.
    pub mode: Option<u32>,
    /// Owner of a Unix path, by name or number.
    pub owner: Option<String>,
    /// Group of a Unix path, by name or number.
    pub group: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 4096,
            nodelay: false,
            v6only: false,
            freebind: false,
            nonblocking: false,
            defer_accept: None,
            mode: None,
            owner: None,
            group: None,
        }
    }
}

/// Why a listener could not be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct AddressError {
    given: String,
    why: String,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no listener: {}", self.given, self.why)
    }
}

impl std::error::Error for AddressError {}

impl Listener {
    /// Reads `[NAME=]ADDRESS[,KEY[=VALUE]...]`; a listener without a name gets `unnamed`.
    pub fn parse(given: &str, unnamed: &str) -> Result<Self, AddressError> {
        let fail = |why: String| AddressError { given: given.to_owned(), why };
        let mut parts = given.split(',');
        let first = parts.next().unwrap_or_default();
        let (name, address) = match first.split_once('=') {
            Some((name, address)) if is_name(name) => (name, address),
            Some((name, _)) if !name.contains([':', '/', '@']) => {
                return Err(fail(format!("the name `{name}` may have letters, digits, `-`, `_` and `.` only")));
            }
            _ => (unnamed, first),
        };
        let address = Address::parse(address).map_err(fail)?;
        let mut options = Options::default();
        for part in parts {
            options.set(part, &address).map_err(fail)?;
        }
        Ok(Self { name: name.to_owned(), address, options })
    }
}

impl Address {
    fn parse(given: &str) -> Result<Self, String> {
        if given.is_empty() {
            return Err("the address is missing; write for example `127.0.0.1:8080`".to_owned());
        }
        if let Some(path) = given.strip_prefix("unix:") {
            return unix(path.strip_prefix("//").unwrap_or(path));
        }
        if let Some(rest) = given.strip_prefix("udp://") {
            return socket_address(rest).map(Self::Udp);
        }
        let rest = given.strip_prefix("tcp://").unwrap_or(given);
        if let Some((scheme, _)) = rest.split_once("://") {
            return Err(format!("`{scheme}` is not one of `tcp`, `udp` and `unix`"));
        }
        if rest.starts_with('/') {
            return Err(format!("a path is written `unix:{rest}`"));
        }
        socket_address(rest).map(Self::Tcp)
    }

    /// The IP address and port, where it has one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(*address),
            Self::Unix(_) | Self::Abstract(_) => None,
        }
    }

    /// True where clients connect, false for datagrams.
    pub fn is_stream(&self) -> bool {
        !matches!(self, Self::Udp(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl Options {
    fn set(&mut self, part: &str, address: &Address) -> Result<(), String> {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let fits = match key {
            "mode" | "owner" | "group" => matches!(address, Address::Unix(_)),
            "nodelay" | "defer-accept" => matches!(address, Address::Tcp(_)),
            "v6only" => address.socket().is_some_and(|socket| socket.is_ipv6()),
            "freebind" => address.socket().is_some(),
            "backlog" => address.is_stream(),
            "nonblocking" => true,
            _ => {
                return Err(format!(
                    "`{key}` is no key; the keys are backlog, nodelay, v6only, freebind, nonblocking, defer-accept, \
                     and for Unix paths mode, owner, group"
                ));
            }
        };
        if !fits {
            return Err(format!("`{key}` means nothing for {address}"));
        }
        match key {
            "backlog" => self.backlog = number(key, value)?,
            "defer-accept" => self.defer_accept = Some(number(key, value)?),
            "nodelay" => self.nodelay = switch(key, value)?,
            "v6only" => self.v6only = switch(key, value)?,
            "freebind" => self.freebind = switch(key, value)?,
            "nonblocking" => self.nonblocking = switch(key, value)?,
            "mode" => self.mode = Some(permissions(value)?),
            "owner" => self.owner = Some(text(key, value)?),
            _ => self.group = Some(text(key, value)?),
        }
        Ok(())
    }
}

/// What listeners and checks may be called.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn unix(path: &str) -> Result<Address, String> {
    if path.len() > LONGEST_UNIX_PATH {
        return Err(format!("a Unix path may have {LONGEST_UNIX_PATH} bytes, this one has {}", path.len()));
    }
    match path.strip_prefix('@') {
        Some("") => Err("the name behind `@` is missing".to_owned()),
        Some(name) => Ok(Address::Abstract(name.to_owned())),
        None if path.starts_with('/') => Ok(Address::Unix(PathBuf::from(path))),
        None if path.is_empty() => Err("the path behind `unix:` is missing".to_owned()),
        None => Err("a Unix path starts with `/`, so that it means the same wherever zdr is started".to_owned()),
    }
}

/// `8080` and `:8080` mean every address of the machine, IPv6 and IPv4, as in Go and systemd.
fn socket_address(given: &str) -> Result<SocketAddr, String> {
    let (host, port) = match given.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None if given.bytes().all(|byte| byte.is_ascii_digit()) => ("", given),
        None => return Err("the port is missing; write for example `127.0.0.1:8080`".to_owned()),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address is written in brackets, for example `[::1]:8080`".to_owned());
    }
    let port = port_number(port)?;
    let ip = match host {
        "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => {
            return Err(format!("a name can mean several addresses; write `127.0.0.1:{port}` or `[::1]:{port}`"));
        }
        _ => bare(host).parse().map_err(|_| format!("`{host}` is no IP address"))?,
    };
    Ok(SocketAddr::new(ip, port))
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn port_number(port: &str) -> Result<u16, String> {
    match port.parse::<u32>() {
        Ok(number) => u16::try_from(number).map_err(|_| format!("the port {number} is above 65535")),
        Err(_) if port.is_empty() => Err("the port is missing behind `:`".to_owned()),
        Err(_) => Err(format!("`{port}` is no port number")),
    }
}

fn number(key: &str, value: Option<&str>) -> Result<u32, String> {
    let value = text(key, value)?;
    match value.parse::<u32>() {
        Ok(number) if number > 0 && number <= i32::MAX.unsigned_abs() => Ok(number),
        _ => Err(format!("`{key}={value}` should be a whole number from 1 to 2147483647")),
    }
}

fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "yes" | "on" | "1") => Ok(true),
        Some("false" | "no" | "off" | "0") => Ok(false),
        Some(value) => Err(format!("`{key}={value}` should be `true` or `false`")),
    }
}

fn permissions(value: Option<&str>) -> Result<u32, String> {
    let value = text("mode", value)?;
    match u32::from_str_radix(&value, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("`mode={value}` should be an octal number such as 0660")),
    }
}

fn text(key: &str, value: Option<&str>) -> Result<String, String> {
    match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(format!("`{key}` needs a value: `{key}=…`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(given: &str) -> Address {
        Listener::parse(given, "web").unwrap().address
    }

    fn refused(given: &str) -> String {
        Listener::parse(given, "web").unwrap_err().to_string()
    }

    #[test]
    fn every_documented_form_is_understood() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        assert_eq!(address("8080"), tcp("[::]:8080"));
        assert_eq!(address(":8080"), tcp("[::]:8080"));
        assert_eq!(address("127.0.0.1:8080"), tcp("127.0.0.1:8080"));
        assert_eq!(address("[::1]:8080"), tcp("[::1]:8080"));
        assert_eq!(address("tcp://0.0.0.0:0"), tcp("0.0.0.0:0"));
        assert_eq!(address("udp://127.0.0.1:53"), Address::Udp("127.0.0.1:53".parse().unwrap()));
        assert_eq!(address("unix:/run/app.sock"), Address::Unix("/run/app.sock".into()));
        assert_eq!(address("unix:///run/app.sock"), Address::Unix("/run/app.sock".into()));
        assert_eq!(address("unix:@app"), Address::Abstract("app".to_owned()));
    }

    #[test]
    fn a_name_stands_before_the_address_and_keys_behind_it() {
        let listener =
            Listener::parse("api=127.0.0.1:1,backlog=7,nodelay,defer-accept=3,nonblocking=no", "web").unwrap();
        assert_eq!(listener.name, "api");
        assert_eq!(listener.options.backlog, 7);
        assert!(listener.options.nodelay);
        assert_eq!(listener.options.defer_accept, Some(3));
        assert!(!listener.options.nonblocking);
        assert_eq!(Listener::parse("8080", "web").unwrap().name, "web");
        assert_eq!(Listener::parse("unix:/a=b,mode=0660", "web").unwrap().options.mode, Some(0o660));
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for given in ["127.0.0.1:8080", "[::]:80", "udp://[::1]:53", "unix:/run/app.sock", "unix:@app"] {
            assert_eq!(address(given).to_string(), given);
        }
    }

    #[test]
    fn a_bad_address_is_refused_with_what_and_why() {
        for (given, why) in [
            ("127.0.0.1:65536", "the port 65536 is above 65535"),
            ("127.0.0.1", "the port is missing"),
            ("127.0.0.1:", "the port is missing behind `:`"),
            ("", "the address is missing"),
            ("web=", "the address is missing"),
            ("127.0.0.1:http", "`http` is no port number"),
            ("example.org:80", "`example.org` is no IP address"),
            ("localhost:80", "write `127.0.0.1:80` or `[::1]:80`"),
            ("::1:80", "in brackets"),
            ("sctp://1.2.3.4:5", "`sctp` is not one of"),
            ("/run/app.sock", "a path is written `unix:/run/app.sock`"),
            ("unix:app.sock", "starts with `/`"),
            ("unix:@", "the name behind `@` is missing"),
            ("a b=8080", "the name `a b` may have"),
            ("8080,backlog=0", "whole number from 1"),
            ("8080,backlog", "`backlog` needs a value"),
            ("8080,colour=red", "`colour` is no key"),
            ("8080,mode=0660", "`mode` means nothing for [::]:8080"),
            ("127.0.0.1:80,v6only", "`v6only` means nothing"),
            ("udp://127.0.0.1:80,backlog=5", "`backlog` means nothing"),
            ("8080,nodelay=maybe", "should be `true` or `false`"),
            ("unix:/a,mode=9", "octal"),
        ] {
            let sentence = refused(given);
            assert!(sentence.contains(why), "{given}: {sentence}");
        }
        assert!(refused(&format!("unix:/{}", "x".repeat(107))).contains("107 bytes, this one has 108"));
    }
}
