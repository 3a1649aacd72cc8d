//! What is taken and what is refused, as tables.

use super::*;

#[test]
fn an_address_is_read_into_its_parts() {
    use Scheme::{Http, Https};
    let table = [
        ("http://127.0.0.1:8080/health", Http, "127.0.0.1", 8080, "/health", "127.0.0.1:8080"),
        ("http://localhost", Http, "localhost", 80, "/", "localhost"),
        ("http://localhost:80/", Http, "localhost", 80, "/", "localhost"),
        ("HTTPS://a.example", Https, "a.example", 443, "/", "a.example"),
        ("https://a.example:443/x", Https, "a.example", 443, "/x", "a.example"),
        ("https://a.example:80/x", Https, "a.example", 80, "/x", "a.example:80"),
        ("http://host?deep=1&a[]=2", Http, "host", 80, "/?deep=1&a[]=2", "host"),
        ("http://host/a?b=http://c:9/@", Http, "host", 80, "/a?b=http://c:9/@", "host"),
        ("http://[::1]/", Http, "::1", 80, "/", "[::1]"),
        ("http://[0:0::1]:81/%20", Http, "::1", 81, "/%20", "[::1]:81"),
        ("http://my_app:65535/", Http, "my_app", 65535, "/", "my_app:65535"),
        ("http://unix:8080/", Http, "unix", 8080, "/", "unix:8080"),
        ("http://unix", Http, "unix", 80, "/", "unix"),
    ];
    for (text, scheme, host, port, path, authority) in table {
        let url = Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let parts = (url.scheme, url.host.as_str(), url.port, url.path_and_query.as_str());
        assert_eq!(parts, (scheme, host, port, path), "{text}");
        assert_eq!(url.authority(), authority, "{text}");
        assert_eq!(url.unix_path, None, "{text}");
        assert_eq!(Url::parse(&url.to_string()), Ok(url), "{text}");
    }
}

#[test]
fn a_unix_socket_is_named_before_the_path() {
    let table = [
        ("http://unix:/run/x.sock:/path?a=b:c", "/run/x.sock", "/path?a=b:c"),
        ("http://unix:/run/x.sock:/", "/run/x.sock", "/"),
        ("http://unix:/run/x.sock:", "/run/x.sock", "/"),
        ("http://unix:/run/x.sock", "/run/x.sock", "/"),
        ("http://unix:/run/a b@c.sock:?q", "/run/a b@c.sock", "/?q"),
    ];
    for (text, socket, path) in table {
        let url = Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(url.unix_path, Some(PathBuf::from(socket)), "{text}");
        assert_eq!((url.path_and_query.as_str(), url.authority().as_str()), (path, "localhost"), "{text}");
        assert_eq!(Url::parse(&url.to_string()), Ok(url), "{text}");
    }
}

#[test]
fn a_wrong_address_is_refused_with_what_is_wrong_and_the_way_out() {
    let long = format!("http://unix:/{}", "x".repeat(UNIX_PATH_MAX));
    let table = [
        ("", "does not begin with http:// or https://"),
        ("/health", "`/health` does not begin with http:// or https://; write it in front"),
        ("localhost:80/", "`localhost:80/` does not begin"),
        ("ftp://host/", "scheme `ftp` is not known; use http or https"),
        ("http://", "the host is missing"),
        ("http:///path", "the host is missing"),
        ("http://:80/", "the host is missing"),
        ("http://me:secret@host/", "take out the part up to @"),
        ("http://host/#top", "take out the part from # on"),
        ("http://host:/", "the port after the colon is missing"),
        ("http://host:0/", "port `0` is not a number from 1 to 65535"),
        ("http://host:65536/", "port `65536` is not a number from 1 to 65535"),
        ("http://host:+80/", "port `+80`"),
        ("http://host:http/", "port `http`"),
        ("http://::1/", "write an IPv6 address in brackets"),
        ("http://[::1/", "no closing bracket"),
        ("http://[::1]80/", "`80` after the bracket is not a port"),
        ("http://[fe80::1%eth0]/", "`fe80::1%eth0` is not an IPv6 address"),
        ("http://[]/", "`` is not an IPv6 address"),
        ("http://256.0.0.1/", "`256.0.0.1` is not an IPv4 address"),
        ("http://127.1/", "`127.1` is not an IPv4 address"),
        ("http://bücher.example/", "is not a host name"),
        ("http://a b/", "is not a host name"),
        ("http://host/a b", "' ' cannot stand in a path; write it percent-encoded"),
        ("http://host/ü", "'ü' cannot stand in a path"),
        ("http://host/\r\nX: y", "'\\r' cannot stand in a path"),
        ("http://host/{id}", "'{' cannot stand in a path"),
        ("https://unix:/run/x.sock:/", "use http://unix:"),
        ("http://unix:run/x.sock:/", "not absolute; write http://unix:/run/x.sock:/path"),
        ("http://unix:/", "`/` is a directory"),
        ("http://unix:/run/:/health", "`/run/` is a directory"),
        ("http://unix:/run/x.sock:health", "write unix:/run/x.sock:/health"),
        ("http://unix:/run/x.sock?q", "write unix:/socket:/path?query"),
        ("http://unix:/run/x\0.sock:/", "cannot hold a NUL"),
        (&long, "has 108 bytes; use one of at most 107"),
    ];
    for (text, wanted) in table {
        let error = Url::parse(text).expect_err(text);
        assert!(error.contains(wanted), "{text}: {error}");
        assert!(!error.ends_with('.') && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn a_password_is_never_repeated() {
    for text in ["http://me:secret@host/", "me:secret@host", "http://me:secret@[::1"] {
        let error = Url::parse(text).expect_err(text);
        assert!(!error.contains("secret"), "{error}");
    }
}
