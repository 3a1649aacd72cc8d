//! Under which paths health is asked for, in the words that probes and people expect: full, live, ready, startup.
//!
//! Knows no answer.

/// Under which paths health is answered.
#[derive(Clone, Debug)]
pub struct HealthPaths(pub Vec<String>);

impl Default for HealthPaths {
    fn default() -> Self {
        Self(vec!["/health".to_owned(), "/_health".to_owned()])
    }
}

/// Which question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    Full,
    Live,
    Ready,
    Startup,
    Stream,
}

impl HealthPaths {
    /// And where the client commands look, whatever the user chose for others.
    pub(super) fn with_default(mut self) -> Self {
        self.0.extend(Self::default().0);
        self
    }

    pub(super) fn aspect(&self, path: &str) -> Option<Aspect> {
        match path {
            "/livez" => return Some(Aspect::Live),
            "/readyz" => return Some(Aspect::Ready),
            "/healthz" => return Some(Aspect::Full),
            _ => {}
        }
        self.0.iter().find_map(|prefix| match path.strip_prefix(prefix.as_str())? {
            "" | "/" => Some(Aspect::Full),
            "/live" => Some(Aspect::Live),
            "/ready" => Some(Aspect::Ready),
            "/startup" => Some(Aspect::Startup),
            "/$stream" => Some(Aspect::Stream),
            _ => None,
        })
    }
}
