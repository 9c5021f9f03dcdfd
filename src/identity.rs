//! Names of runs, layers and windows, checked once.
//!
//! Guarantees: a [`RunName`] and a [`LayerName`] are always valid; copies are cheap. Must not: know what they name.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Code, Refusal};

pub(crate) const MAX_NAME: usize = 128;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl FromStr for $name {
            type Err = Refusal;

            fn from_str(text: &str) -> Result<Self, Refusal> {
                check($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a run.
    RunName, "run"
}

name! {
    /// The name of a layer as pushed, without a role's suffix.
    LayerName, "layer"
}

impl RunName {
    /// A name that was checked before it was stored.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl LayerName {
    /// A name that was checked before it was stored.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

/// One revision of one window of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowKey {
    pub run: RunName,
    pub layer: LayerName,
    pub window: u64,
    /// From 1. A restarted trainer's rows for a closed window make the next revision.
    pub revision: u32,
}

fn check(what: &str, name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fault = if name.is_empty() || name.chars().count() > MAX_NAME {
        format!("has {} characters", name.chars().count())
    } else if name == "." || name == ".." {
        format!("is '{name}'")
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        format!("holds '{}'", c.escape_debug())
    } else {
        return Ok(());
    };
    Err(Refusal::over(
        Code::Malformed,
        format!("the {what} name {fault}: use 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - (and not . or ..)"),
        MAX_NAME as u64,
    ))
}
