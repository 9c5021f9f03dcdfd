//! The house: which room names which, that no files name each other in a circle, what a room may touch, how long a file
//! may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// (room, rooms it may name). Every room of `src` has a row.
const DIRECTION: [(&str, &[&str]); 24] = [
    ("analysis", &["analysis"]),
    ("error.rs", &["analysis"]),
    ("identity.rs", &["error"]),
    ("budget.rs", &[]),
    ("telemetry.rs", &["traces"]),
    ("traces.rs", &[]),
    ("dashboards.rs", &[]),
    ("compute", &["analysis", "budget", "compute"]),
    ("publish", &["analysis", "error", "identity", "publish", "telemetry"]),
    ("pipeline", &["analysis", "budget", "compute", "error", "identity", "pipeline", "publish", "telemetry"]),
    ("wire", &["analysis", "error", "pipeline", "publish", "wire"]),
    ("ingest", &["analysis", "budget", "error", "identity", "ingest", "pipeline", "telemetry", "wire"]),
    ("web", &["analysis", "compute", "error", "identity", "ingest", "pipeline", "publish", "web", "wire"]),
    ("server", &["error", "ingest", "publish", "server", "web", "wire"]),
    ("client.rs", &["publish"]),
    ("replay.rs", &["analysis", "client", "wire"]),
    ("demo.rs", &["analysis", "client", "replay", "wire"]),
    ("terminal.rs", &["analysis", "wire"]),
    ("plot.rs", &["analysis"]),
    ("analyze.rs", &["analysis", "budget", "compute", "pipeline"]),
    ("config", &["client", "compute", "config", "ingest", "pipeline", "publish", "replay", "server"]),
    ("app.rs", &["compute", "config", "ingest", "pipeline", "publish", "server", "web"]),
    (
        "commands.rs",
        &[
            "analysis",
            "analyze",
            "app",
            "client",
            "config",
            "dashboards",
            "demo",
            "plot",
            "replay",
            "telemetry",
            "terminal",
            "web",
            "wire",
        ],
    ),
    ("main.rs", &["commands"]),
];

/// (room, words that must not stand in it): the table of what a room may touch.
const FORBIDDEN: [(&str, &[&str]); 9] = [
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
            "rand::",
            "kernels::cpu",
        ],
    ),
    ("compute", &["std::net", "std::fs", "Instant", "SystemTime", "tokio", "tracing::", "jiff"]),
    (
        "pipeline",
        &["std::net", "std::fs", "Instant::now", "SystemTime", "Timestamp::now", "thread::spawn", "thread::Builder"],
    ),
    ("publish", &["std::net", "Instant::now", "SystemTime", "Timestamp::now", "std::thread", "tokio::spawn"]),
    ("wire", &["std::fs", "std::thread", "rusqlite", "Timestamp::now"]),
    ("ingest", &["std::fs", "std::thread", "rusqlite"]),
    ("web", &["std::fs", "std::thread", "rusqlite"]),
    ("server", &["std::fs", "std::thread", "rusqlite"]),
    ("config", &["std::thread::spawn", "tokio"]),
];

/// The kernels' files that may hold `unsafe`, with its proof: the inner loops that were measured to need it.
const MEASURED_KERNELS: [&str; 2] = ["cpu/tiles.rs", "cpu/vectors.rs"];

const LONGEST_FILE: usize = 420;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/kernels/src")
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

/// (path from `root`, text without its tests and comments)
fn code(root: &Path) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    files(root, &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
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
    for (file, text) in code(&source()) {
        if file == "lib.rs" {
            continue;
        }
        let row = DIRECTION.iter().find(|(room, _)| in_room(&file, room));
        let (_, allowed) = row.unwrap_or_else(|| panic!("{file} is in no room of the table"));
        for named in text.split("crate::").skip(1) {
            let room: String = named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(
                room.is_empty() || allowed.contains(&room.as_str()),
                "{file} names crate::{room}, it may name {allowed:?}"
            );
        }
    }
}

/// `pipeline/mod.rs` is the module `pipeline`, `pipeline/layer.rs` is `pipeline::layer`.
fn module(file: &str) -> String {
    let path = file.trim_end_matches(".rs").replace('/', "::");
    path.strip_suffix("::mod").map_or(path.clone(), str::to_string)
}

/// The paths of a `use`, its braces expanded.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.to_string()] };
    let mut paths = Vec::new();
    let (mut depth, mut item) = (0, String::new());
    for c in rest[..rest.rfind('}').unwrap_or(0)].chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            paths.extend(expanded(&format!("{prefix}{}", item.trim())));
            item.clear();
        } else {
            item.push(c);
        }
    }
    paths
        .extend((!item.trim().is_empty()).then(|| expanded(&format!("{prefix}{}", item.trim()))).into_iter().flatten());
    paths
}

/// Which file a path names: that of its longest prefix which is a module.
fn named(path: &str, from: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base: Vec<&str> = from.split("::").collect();
    match parts[0] {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while parts.first() == Some(&"super") {
                base.pop();
                parts.remove(0);
            }
            parts.insert(0, "");
        }
        own if modules.contains_key(&format!("{from}::{own}")) => parts.insert(0, ""),
        _ => return None,
    }
    base.extend(&parts[1..]);
    (1..=base.len()).rev().map(|n| base[..n].join("::")).find(|prefix| modules.contains_key(prefix))
}

/// What each file of a crate names of the others, by module.
fn arrows(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let code = code(root);
    let modules: BTreeMap<String, String> = code.iter().map(|(file, text)| (module(file), text.clone())).collect();
    let mut arrows = BTreeMap::new();
    for (from, text) in &modules {
        let uses = text.match_indices("use ").filter(|(at, _)| {
            let line = text[..*at].rsplit('\n').next().unwrap_or("").trim();
            line.is_empty() || (line.starts_with("pub") && !line.contains(['=', '{', ';']))
        });
        // Within a module that stands in the file itself, `super` is the file.
        let own = |at: usize| {
            let block = text[..at].lines().rev().find(|line| line.ends_with('{') && !line.starts_with(' '));
            block.is_some_and(|line| line.starts_with("mod ")) && !text[..at].ends_with('\n')
        };
        let uses = uses.filter(|(at, _)| !own(*at));
        let uses = uses.filter_map(|(at, word)| text[at + word.len()..].split(';').next()).flat_map(expanded);
        let inline = text.match_indices("crate::").map(|(at, _)| {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
            text[at..].chars().take_while(|c| word(*c)).collect::<String>()
        });
        let found = uses.chain(inline).filter_map(|path| named(&path, from, &modules));
        arrows.insert(from.clone(), found.filter(|to| to != from).collect());
    }
    arrows
}

/// Takes away whatever names nothing that is left, until nothing more can be taken: what stays is in a circle or leads to
/// one.
#[test]
fn no_files_name_each_other_in_a_circle() {
    for root in [source(), kernels()] {
        let mut arrows = arrows(&root);
        arrows.retain(|from, _| !matches!(from.as_str(), "lib" | "main"));
        assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 30, "the arrows were not found");
        loop {
            let free: Vec<String> =
                arrows.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| from.clone()).collect();
            if free.is_empty() {
                break;
            }
            for from in &free {
                arrows.remove(from);
                for to in arrows.values_mut() {
                    to.remove(from);
                }
            }
        }
        assert!(arrows.is_empty(), "in a circle, or leading to one: {arrows:#?}");
    }
}

#[test]
fn rooms_touch_only_what_they_may() {
    for (file, text) in code(&source()) {
        for (room, words) in FORBIDDEN {
            if in_room(&file, room) {
                for word in words {
                    assert!(!text.contains(word), "{file} must not touch {word}");
                }
            }
        }
        let json = text.contains("serde_json");
        assert!(!json || !in_room(&file, "analysis") || file == "analysis/decode/json.rs", "{file} names serde_json");
        let printing = text.contains("println!") || text.contains("eprintln!");
        assert!(!printing || file == "commands.rs", "{file} prints; only commands.rs may");
    }
    let pure = ["std::net", "std::fs", "std::time", "SystemTime", "tokio", "tracing::", "serde"];
    for (file, text) in code(&kernels()) {
        // A pause between two workers is a length of time, not a clock.
        let exempt = |word: &str| file == "fault.rs" && word == "std::time";
        let touched = pure.iter().find(|word| text.contains(**word) && !exempt(word));
        assert!(touched.is_none(), "the kernels' {file} must not touch {touched:?}");
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    files(&kernels(), &mut paths);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{path:?} does not say what it is");
        assert!(text.lines().count() <= LONGEST_FILE, "{path:?} has {} lines", text.lines().count());
        let kernel = path.starts_with(kernels()) && MEASURED_KERNELS.iter().any(|kernel| path.ends_with(kernel));
        let forbids = text.contains("#![forbid(unsafe_code)]");
        assert!(kernel || forbids || !text.contains("unsafe"), "{path:?} is not a measured kernel");
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
