//! The word of an enum's value, as it stands in answers, labels and messages.

/// Any enum that strum gives words: `Display` writes the same word, `FromStr` reads it.
pub trait Word: Copy + Into<&'static str> {
    /// The word.
    fn word(self) -> &'static str {
        self.into()
    }
}

impl<T: Copy + Into<&'static str>> Word for T {}
