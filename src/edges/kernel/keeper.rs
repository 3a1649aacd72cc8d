//! stub
use super::seccomp::Notifier;
/// stub
#[derive(Debug)]
pub struct Keeper;
impl Keeper {
    /// stub
    pub fn start() -> std::io::Result<Self> {
        Ok(Self)
    }
    /// stub
    pub fn keep(&self, _: &Notifier) -> std::io::Result<()> {
        Ok(())
    }
    /// stub
    pub fn pid(&self) -> i32 {
        0
    }
}
