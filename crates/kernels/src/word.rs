//! The word for an enum's value in answers, labels and messages.

/// Any enum that gets its words from strum: `Display` writes the same word, `FromStr` reads it.
pub trait Word: Copy + Into<&'static str> {
    /// The value's word.
    fn word(self) -> &'static str {
        self.into()
    }
}

impl<T: Copy + Into<&'static str>> Word for T {}
