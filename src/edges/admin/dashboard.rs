//! The dashboard: one page that shows what the streams of health and events tell, in a browser.
//!
//! It brings everything along and asks for nothing but those two streams, and its policy lets it do nothing else.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::health::HealthPaths;
use crate::edges::http_server::{Answer, Body};

const PAGE: &str = include_str!("dashboard.html");

/// Where the page says under which path health is streamed, which is the user's to choose.
const HEALTH: &str = r#"<meta name="health" content="health">"#;

/// Only the one script and the one style of the page, by their hashes; and text that comes from a server stays text.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let (script, style) = (hash(inside("script")?)?, hash(inside("style")?)?);
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    HeaderValue::try_from(policy).ok()
});

/// The page.
pub(super) fn answer(paths: &HealthPaths) -> Answer {
    let mut headers = vec![
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    headers.extend(POLICY.clone().map(|policy| (CONTENT_SECURITY_POLICY, policy)));
    Answer { status: StatusCode::OK, headers, body: Body::Whole(page(paths)) }
}

/// Relative, so that it is found behind a proxy that puts it all below a prefix of its own.
fn page(paths: &HealthPaths) -> Bytes {
    let Some(path) = paths.0.first() else { return Bytes::from_static(PAGE.as_bytes()) };
    let path = path.trim_start_matches('/').replace('&', "&amp;").replace('"', "&quot;");
    Bytes::from(PAGE.replacen(HEALTH, &format!(r#"<meta name="health" content="{path}">"#), 1))
}

/// What stands in the page's only element of this name.
fn inside(element: &str) -> Option<&'static str> {
    let (_, rest) = PAGE.split_once(&format!("<{element}>"))?;
    Some(rest.split_once(&format!("</{element}>"))?.0)
}

/// SHA-256 in Base64, as policies are written. The hash is that of the probes' TLS, so that no other is carried along.
fn hash(text: &str) -> Option<String> {
    let hash = TLS13_AES_128_GCM_SHA256.tls13()?.common.hash_provider.hash(text.as_bytes());
    Some(base64(hash.as_ref()))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        let letter = |at: usize| if at > three.len() { '=' } else { char::from(LETTERS[bits >> (18 - 6 * at) & 63]) };
        [letter(0), letter(1), letter(2), letter(3)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> String {
        POLICY.as_ref().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_policy_names_the_hashes_of_the_script_and_the_style() {
        // RFC 4648, section 10, and FIPS 180-2, appendix B.1.
        assert_eq!(
            ["", "f", "fo", "foo", "foobar"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]
        );
        assert_eq!(hash("abc").unwrap(), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        assert!(policy().contains(&format!("script-src 'sha256-{}'", hash(inside("script").unwrap()).unwrap())));
        assert!(policy().contains(&format!("style-src 'sha256-{}'", hash(inside("style").unwrap()).unwrap())));
    }

    #[test]
    fn the_page_is_one_small_file_with_one_script_and_one_style_and_no_address_of_elsewhere() {
        assert!(PAGE.len() < 60_000, "{} bytes", PAGE.len());
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        let elsewhere = PAGE.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "src=", "@import", "url(", "style=", "onclick=\"", "innerHTML", "eval("] {
            assert!(!elsewhere.contains(word), "{word}");
        }
    }

    #[test]
    fn the_page_knows_the_path_of_health() {
        let of = |path: &str| String::from_utf8(page(&HealthPaths(vec![path.to_owned()])).to_vec()).unwrap();
        assert!(of("/health").contains(HEALTH));
        assert!(of("/up/a\"b&c").contains(r#"<meta name="health" content="up/a&quot;b&amp;c">"#));
    }
}
