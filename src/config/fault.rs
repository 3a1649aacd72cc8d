//! What is wrong with the settings, and with which of them.
//!
//! Knows no file: where an option was written is known to whoever has read it.

/// A sentence about the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The long name of the option that it is about; None where no option says it.
    pub option: Option<&'static str>,
    /// Which of its values, counted from 0, where it has several and one is wrong.
    pub nth: Option<usize>,
    /// What is wrong, why, and the way out.
    pub sentence: String,
}

impl Fault {
    /// About an option.
    pub fn of(option: &'static str, sentence: impl Into<String>) -> Self {
        Self { option: Some(option), nth: None, sentence: sentence.into() }
    }

    /// About one value of an option that may be given more than once.
    pub fn of_value(option: &'static str, nth: usize, sentence: impl Into<String>) -> Self {
        Self { option: Some(option), nth: Some(nth), sentence: sentence.into() }
    }

    /// About what no option says.
    pub fn of_none(sentence: impl Into<String>) -> Self {
        Self { option: None, nth: None, sentence: sentence.into() }
    }
}
