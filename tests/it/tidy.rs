//! The house: which room names which, what a room may touch, how long a file may be.

use std::path::{Path, PathBuf};

/// (room, rooms it may name). main, demo and analyze sit on top with app.
const DIRECTION: [(&str, &[&str]); 9] = [
    ("analysis", &["analysis"]),
    ("compute", &["analysis", "compute"]),
    ("publish/dashboards", &["analysis"]),
    ("publish", &["analysis", "publish", "error", "telemetry"]),
    ("pipeline", &["analysis", "compute", "publish", "pipeline", "error", "telemetry"]),
    ("ingest", &["analysis", "pipeline", "publish", "ingest", "web", "error", "telemetry"]),
    ("web", &["analysis", "pipeline", "publish", "ingest", "web", "error", "telemetry"]),
    ("error.rs", &["analysis"]),
    ("telemetry.rs", &[]),
];

/// Where `unsafe` may stand, with its proof: the inner loops that were measured to need it.
const MEASURED_KERNELS: [&str; 4] =
    ["compute/cpu/tiles.rs", "compute/cpu/vectors.rs", "compute/cpu/amx.rs", "compute/cpu/amx/trapped.rs"];

/// (room, words that must not stand in it): the table of what a room may touch.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    (
        "analysis",
        &[
            "std::net",
            "std::fs",
            "std::time",
            "Instant::now",
            "SystemTime",
            "std::thread",
            "tokio",
            "async fn",
            "Mutex",
            "RwLock",
            "tracing::",
            "derive(Serialize",
            "rand::",
        ],
    ),
    ("compute", &["std::net", "std::fs", "Instant", "SystemTime", "tokio", "tracing::", "jiff"]),
    (
        "pipeline",
        &["std::net", "std::fs", "Instant::now", "SystemTime", "Timestamp::now", "thread::spawn", "thread::Builder"],
    ),
    ("publish", &["std::net", "Instant::now", "SystemTime", "Timestamp::now", "std::thread", "tokio::spawn"]),
    // Pure: the same program gives the same bytes.
    (
        "publish/dashboards",
        &["std::fs", "std::env", "jiff", "tokio", "async fn", "Mutex", "RwLock", "rand::", "rusqlite"],
    ),
    ("ingest", &["std::fs", "std::thread", "rusqlite", "faer"]),
    ("web", &["std::fs", "std::thread", "rusqlite", "faer"]),
];

const LONGEST_FILE: usize = 420;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

/// (path from src, text without its tests and comments)
fn code() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(source()).unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (name, lines.join("\n"))
    };
    paths.iter().map(read).collect()
}

fn in_room(file: &str, room: &str) -> bool {
    file == room || file.starts_with(&format!("{room}/"))
}

#[test]
fn rooms_name_only_what_they_may() {
    for (file, text) in code() {
        let Some((_, allowed)) = DIRECTION.iter().find(|(room, _)| in_room(&file, room)) else { continue };
        for named in text.split("crate::").skip(1) {
            let room: String = named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(
                room.is_empty() || allowed.contains(&room.as_str()),
                "{file} names crate::{room}, it may name {allowed:?}"
            );
        }
    }
}

#[test]
fn rooms_touch_only_what_they_may() {
    for (file, text) in code() {
        for (room, words) in FORBIDDEN {
            if in_room(&file, room) {
                for word in words {
                    assert!(!text.contains(word), "{file} must not touch {word}");
                }
            }
        }
        let printing = text.contains("println!") || text.contains("eprintln!");
        assert!(!printing || file == "main.rs", "{file} prints; only main.rs may");
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{path:?} does not say what it is");
        assert!(text.lines().count() <= LONGEST_FILE, "{path:?} has {} lines", text.lines().count());
        let kernel = MEASURED_KERNELS.iter().any(|kernel| path.ends_with(kernel));
        assert!(kernel || !text.contains("unsafe"), "{path:?} is no measured kernel");
    }
}

#[test]
fn the_page_puts_nothing_in_as_markup() {
    for entry in std::fs::read_dir(source().join("web/page")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue; // what others wrote is there as they released it
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= LONGEST_FILE, "{name} has {} lines", text.lines().count());
        let head = if name.ends_with(".js") { format!("// {name}: ") } else { String::new() };
        assert!(text.starts_with(&head), "{name} does not say what it is");
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", ".style.", "style=", "http:"]
        {
            assert!(!text.contains(word) || (word == "http:" && name == "index.html"), "{name} must not hold {word}");
        }
    }
}
