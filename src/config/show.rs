//! `fullrank check-config`: the values that `serve` would use, and where each comes from.
//!
//! Guarantees: only the harmless part of a value that may hold a secret is shown.

use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use reqwest::Url;

use crate::publish::notify::origin;

/// Flags whose value may hold a secret: addresses with passwords or tokens in them.
const SECRET: [&str; 2] = ["webhooks", "alertmanagers"];

/// One line per flag of `command`: name, value, source.
pub fn effective(command: &Command, matches: &ArgMatches) -> String {
    let mut text = String::new();
    for argument in command.get_arguments() {
        let (id, Some(flag)) = (argument.get_id().as_str(), argument.get_long()) else { continue };
        if matches.try_contains_id(id).is_err() || matches!(flag, "help" | "version") {
            continue;
        }
        let raw = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        let values: Vec<String> =
            raw.map(|value| if SECRET.contains(&id) { harmless(&value) } else { value }).collect();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line".to_string(),
            Some(ValueSource::EnvVariable) => {
                argument.get_env().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
            }
            Some(_) => "default".to_string(),
            None => "not set".to_string(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "--{flag:<24} {:<32} {source}", values.join(","));
    }
    text
}

/// Scheme, host and port.
fn harmless(value: &str) -> String {
    value
        .split(',')
        .map(|value| match Url::parse(value) {
            Ok(url) => {
                let hidden = url.path() != "/" || url.query().is_some() || !url.username().is_empty();
                format!("{}{}", origin(&url), if hidden { "/(hidden)" } else { "" })
            }
            Err(_) => "(hidden)".to_string(),
        })
        .collect::<Vec<_>>()
        .join(",")
}
