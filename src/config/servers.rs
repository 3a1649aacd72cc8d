//! Servers that do not finish their requests on TERM, by the names of their programs, and what asks them to.
//!
//! Looks at names only: what runs behind a wrapper is not known here. The manual has the same table (DRAIN).

use std::ffi::OsStr;
use std::path::Path;

/// What is known of one server.
#[derive(Debug)]
struct Server {
    /// What its program may be called; a version behind that (`php-fpm8.2`) is no matter.
    names: &'static [&'static str],
    /// What it does on TERM.
    on_term: &'static str,
    /// How it is asked to finish, as options of zdr or of its own.
    way_out: &'static str,
}

const AT_ONCE: &str = "ends at once";
const QUIT: &str = "--drain-signal QUIT";

const KNOWN: [Server; 9] = [
    // Source: nginx.org/en/docs/control.html; the two forks say the same.
    Server { names: &["nginx", "openresty", "angie"], on_term: AT_ONCE, way_out: QUIT },
    // Source: httpd.apache.org/docs/2.4/stopping.html
    Server { names: &["apache2", "httpd"], on_term: AT_ONCE, way_out: "--drain-signal WINCH" },
    // Source: php-fpm(8); without `process_control_timeout` in its configuration it waits for nobody even then.
    Server { names: &["php-fpm"], on_term: AT_ONCE, way_out: QUIT },
    // Source: management.txt of haproxy, 4. Stopping and restarting HAProxy
    Server { names: &["haproxy"], on_term: AT_ONCE, way_out: "--drain-signal USR1" },
    // Source: doc/initscripts.txt of lighttpd, lighttpd-angel(8)
    Server { names: &["lighttpd", "lighttpd-angel"], on_term: AT_ONCE, way_out: "--drain-signal INT" },
    // Source: SIGNALS of unicorn and rainbows
    Server { names: &["unicorn", "unicorn_rails", "rainbows"], on_term: AT_ONCE, way_out: QUIT },
    // Source: starman(1), SIGNALS
    Server { names: &["starman"], on_term: AT_ONCE, way_out: QUIT },
    // Source: Mojo::Server::Hypnotoad(3pm), MANAGER SIGNALS
    Server { names: &["hypnotoad"], on_term: AT_ONCE, way_out: QUIT },
    // Source: Management in uwsgi-docs: TERM reloads, INT and QUIT kill; unbit/uwsgi#849: how it can be made to finish.
    Server {
        names: &["uwsgi"],
        on_term: "reloads itself",
        way_out: "--hook-master-start \"unix_signal:15 gracefully_kill_them_all\" behind it",
    },
];

/// What is to be said where this program is to be asked to finish by TERM.
pub fn advice(program: &OsStr) -> Option<String> {
    let name = Path::new(program).file_name()?.to_str()?;
    let unversioned = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    let known = |server: &&Server| server.names.iter().any(|known| [name, unversioned].contains(known));
    let Server { on_term, way_out, .. } = KNOWN.iter().find(known)?;
    Some(format!("{name} {on_term} on TERM; {way_out} lets it finish its requests"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_server_is_known_by_its_name_wherever_it_lies_and_whatever_its_version() {
        let said = |program: &str| advice(OsStr::new(program));
        assert_eq!(
            said("/usr/sbin/nginx").unwrap(),
            "nginx ends at once on TERM; --drain-signal QUIT lets it finish its requests"
        );
        assert!(said("apache2").unwrap().contains("WINCH"));
        assert!(said("php-fpm8.2").unwrap().starts_with("php-fpm8.2 ends at once on TERM; --drain-signal QUIT"));
        assert!(said("unicorn3.1").is_some());
        for other in ["gunicorn", "puma", "my-nginx", "nginx-exporter", "sh", "", "/", "..", "8080"] {
            assert_eq!(said(other), None, "{other}");
        }
    }

    /// The rows of the manual: `.It Li name , name` and one line of mdoc with the way out.
    #[test]
    fn the_manual_has_the_same_servers() {
        let manual = include_str!("../../man/zdr.1");
        let table = manual.split(".\\\" Servers of src/config/servers.rs\n").nth(1).unwrap();
        let table = table.split("\n.El\n").next().unwrap();
        let mut lines = table.lines().filter(|line| !line.starts_with(".Bl"));
        let mut rows = BTreeSet::new();
        while let Some(names) = lines.next() {
            let way_out = lines.next().unwrap().replace(".Fl -drain-signal Dv ", "--drain-signal ");
            let way_out = way_out.trim_start_matches(".Ql ").replace("\\(dq", "\"");
            rows.insert((names.strip_prefix(".It Li ").unwrap().to_owned(), way_out));
        }
        let known = KNOWN.iter().map(|server| {
            let way_out = server.way_out.trim_end_matches(" behind it");
            (server.names.join(" , "), way_out.to_owned())
        });
        assert_eq!(rows, known.collect());
    }
}
