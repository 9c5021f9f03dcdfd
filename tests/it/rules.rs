//! The rules, runbooks and routes in `dashboards/` against the program's own tables: a name that fullrank does not have,
//! an alarm that nobody is told of, and an alert without a runbook or a test fail here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fullrank::analysis::verdict::{Alarm, Cause, Level, VerdictState};
use fullrank::error::Code;
use fullrank::publish::{Board, Build, RunCollector, ServiceMetrics};
use kernels::fault::FallbackReason;
use kernels::word::Word;
use prometheus::core::Collector;
use strum::VariantArray;

use crate::files::read;
use crate::harness::Server;

const RULES: &str = "dashboards/prometheus/fullrank.rules.yaml";
/// What Prometheus puts on every series.
const TARGET: [&str; 2] = ["job", "instance"];

/// Names without their ending, of files in a folder.
fn stems(folder: &str, ending: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).filter_map(|name| Some(name.strip_suffix(ending)?.to_string())).collect()
}

pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every word that begins with `prefix`, with what stands after it.
pub fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let begins = !text[..at].ends_with(|c: char| is_word(c) || c == ':');
        let length = text[at..].find(|c| !is_word(c) && c != ':').unwrap_or(text.len() - at);
        begins.then(|| text[at..].split_at(length))
    })
}

/// Every family with its labels: of runs by their descriptions, of the service by a scrape of one without runs, where
/// every label is there from the start.
pub fn families() -> BTreeMap<String, BTreeSet<String>> {
    let build = Build { version: "", revision: "", backend: String::new() };
    let service = ServiceMetrics::new(&build, 1).unwrap();
    let collector = RunCollector::new(Arc::new(Board::default()), service, 1).unwrap();
    let described = |desc: &prometheus::core::Desc| {
        (desc.fq_name.clone(), desc.variable_labels.iter().cloned().collect::<BTreeSet<String>>())
    };
    let mut families: BTreeMap<_, _> = collector.desc().into_iter().map(described).collect();
    for line in Server::start(&[]).metrics().0.lines().filter(|line| line.starts_with("fullrank_")) {
        let (name, rest) = line.split_at(line.find(|c| !is_word(c)).unwrap());
        let labels = families.entry(name.to_string()).or_default();
        labels.extend(rest.split("=\"").filter_map(|part| part.rsplit([',', '{', ' ']).next()).map(str::to_string));
    }
    families
}

/// The values that a label can have; none where anything goes.
fn values(label: &str) -> Option<BTreeSet<&'static str>> {
    Some(match label {
        "alarm" => Alarm::ALL.iter().map(|(alarm, _)| alarm.word()).collect(),
        "severity" => [Level::Warning, Level::Critical].map(Level::word).into(),
        "state" => VerdictState::VARIANTS.iter().map(|state| state.word()).collect(),
        "reason" => {
            Code::all().map(Code::word).chain(FallbackReason::VARIANTS.iter().map(|reason| reason.word())).collect()
        }
        _ => return None,
    })
}

/// `label op "value"` of what stands after a metric's name.
fn matchers(after: &str) -> Vec<(&str, &str)> {
    let Some(inside) = after.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { return Vec::new() };
    let label = |part: &'_ str| part.trim_start_matches([',', ' ']).find(|c| !is_word(c));
    let pieces: Vec<&str> = inside.0.split('"').collect();
    let pairs = pieces.chunks_exact(2);
    pairs
        .map(|pair| {
            let part = pair[0].trim_start_matches([',', ' ']);
            (&part[..label(pair[0]).unwrap_or(part.len())], pair[1])
        })
        .collect()
}

/// (name, the rule's lines) of every rule that begins with `kind`.
fn rules<'a>(text: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let all = text.split("\n      - ").skip(1);
    all.filter_map(|rule| rule.strip_prefix(kind)).map(|rule| rule.split_once('\n').unwrap()).collect()
}

fn alerts() -> BTreeSet<String> {
    rules(&read(RULES), "alert: ").into_iter().map(|(name, _)| name.to_string()).collect()
}

/// What in `text` names something that fullrank does not have.
pub fn unknown(text: &str) -> Vec<String> {
    let families = families();
    let labels: BTreeSet<&str> = families.values().flatten().map(String::as_str).chain(TARGET).collect();
    let recorded: BTreeSet<&str> = rules(text, "record: ").into_iter().map(|(name, _)| name).collect();
    let mut wrong = Vec::new();
    for (name, after) in words(text, "fullrank_").chain(words(text, "fullrank:")) {
        let known = families.get(name);
        if known.is_none() && !recorded.contains(name) {
            wrong.push(format!("the metric {name}"));
        }
        let has = |label: &str| TARGET.contains(&label) || known.is_none_or(|labels| labels.contains(label));
        for (label, value) in matchers(after) {
            if !has(label) || !labels.contains(label) {
                wrong.push(format!("the label {label} of {name}"));
            }
            let possible = values(label);
            let strange = |word: &&str| !word.is_empty() && possible.as_ref().is_some_and(|all| !all.contains(word));
            wrong.extend(value.split('|').filter(strange).map(|word| format!("the {label} {word} of {name}")));
        }
        // Selectors that the descriptions put together: $l has the layer, $r the run.
        for (variable, label) in [("\" $l)", "layer"), ("\" $r)", "run")] {
            if after.starts_with(variable) && !has(label) {
                wrong.push(format!("the label {label} of {name}"));
            }
        }
    }
    let lists = ["ignoring (", "without (", "by (", "on ("].iter().flat_map(|word| text.split(word).skip(1));
    let listed = lists.flat_map(|rest| rest.split(')').next().unwrap().split(", "));
    let templated = ["$labels.", " .Labels.", "{.Labels."].iter().flat_map(|word| text.split(word).skip(1));
    let templated = templated.map(|rest| rest.split(|c| !is_word(c)).next().unwrap());
    wrong.extend(
        listed.chain(templated).filter(|label| !labels.contains(label)).map(|label| format!("the label {label}")),
    );
    wrong
}

#[test]
fn rules_name_only_what_fullrank_has() {
    let text = read(RULES);
    let wrong = unknown(&text);
    assert!(wrong.is_empty(), "{RULES} names what fullrank does not have: {wrong:#?}");
    // The check itself: each of these is found, by its name.
    for (right, wrong) in [
        ("fullrank_scaled_std", "fullrank_scaled_deviation"),
        ("fullrank:collapse:last3d", "fullrank:collapse:last4d"),
        ("state=\"collapsed\"", "state=\"colapsed\""),
        ("alarm=\"stale_queue\"", "alarm=\"stale\""),
        ("reason=\"storage_full\"", "cause=\"storage_full\""),
        ("\"fullrank_scaled_std\" $l", "\"fullrank_run_loss\" $l"),
        ("by (job, instance, reason)", "by (job, instance, code)"),
        ("$labels.layer", "$labels.level"),
    ] {
        assert!(text.contains(right), "{right}");
        let found = unknown(&text.replacen(right, wrong, 1));
        assert!(!found.is_empty(), "{wrong} passes");
    }
}

#[test]
fn every_alarm_has_an_alert() {
    let text = read(RULES);
    for (alarm, _) in Alarm::ALL {
        // As alerts that fullrank sends by itself are called (`publish/notify/alert.rs`): one receiver serves both.
        let capitalised = alarm.word().split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
        let name: String = std::iter::once("Fullrank".to_string()).chain(capitalised).collect();
        let asked = format!("alarm=\"{}\"", alarm.word());
        let asks = |(alert, rule): &(&str, &str)| {
            *alert == name && rule.split("annotations:").next().is_some_and(|expression| expression.contains(&asked))
        };
        assert!(rules(&text, "alert: ").iter().any(asks), "no alert {name} asks for {asked}");
    }
}

#[test]
fn every_alert_says_what_it_must() {
    for (name, rule) in rules(&read(RULES), "alert: ") {
        let severity = rule.contains("severity: warning") || rule.contains("severity: critical");
        assert!(severity || rule.contains("fullrank:alarm{"), "{name} has no severity of its own and no alarm's");
        for annotation in ["summary: ", "description: ", "dashboard_url: "] {
            assert!(rule.contains(annotation), "{name} has no {annotation}");
        }
        assert!(rule.contains(&format!("runbook_url: dashboards/runbooks/{name}.md\n")), "{name} has no runbook_url");
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test_and_nothing_else_has() {
    let alerts = alerts();
    let mut runbooks = stems("dashboards/runbooks", ".md");
    assert!(runbooks.remove("README"));
    assert_eq!(runbooks, alerts, "runbooks (left) and alerts (right) differ");
    let index = read("dashboards/runbooks/README.md");
    for name in &alerts {
        assert!(index.contains(&format!("[{name}]({name}.md)")), "dashboards/runbooks/README.md does not list {name}");
        let runbook = read(&format!("dashboards/runbooks/{name}.md"));
        assert!(runbook.starts_with(&format!("# {name}\n")), "{name}.md");
        for section in ["## What it means", "## A false one?", "## What to try", "## Acknowledge"] {
            assert!(runbook.contains(&format!("\n{section}\n")), "{name}.md has no section {section}");
        }
    }
    let folder = "dashboards/prometheus/tests";
    let tests: String = stems(folder, ".yaml").iter().map(|name| read(&format!("{folder}/{name}.yaml"))).collect();
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for case in tests.split("alertname: ").skip(1) {
        let name = case.split(|c| !is_word(c)).next().unwrap().to_string();
        if case.contains("exp_alerts") { &mut fires } else { &mut quiet }.insert(name);
    }
    assert_eq!(fires, alerts, "tested to fire (left), and alerts (right)");
    assert_eq!(quiet, alerts, "tested not to fire (left), and alerts (right)");
}

#[test]
fn routes_name_only_alerts_that_there_are() {
    let (alerts, routes) = (alerts(), read("dashboards/alertmanager/alertmanager.yaml"));
    for (name, after) in words(&routes, "Fullrank") {
        assert!(after.starts_with(['.', '(']) || alerts.contains(name), "no alert is called {name}");
    }
    for name in routes.split("Fullrank(").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split('|')) {
        assert!(alerts.contains(&format!("Fullrank{name}")), "no alert is called Fullrank{name}");
    }
    for (label, value) in routes.split("severity=\"").skip(1).map(|rest| ("severity", rest.split('"').next().unwrap()))
    {
        assert!(values(label).unwrap().contains(value), "no severity is called {value}");
    }
}

#[test]
fn runbooks_name_only_causes_that_there_are() {
    for name in alerts() {
        let text = read(&format!("dashboards/runbooks/{name}.md"));
        for cause in text.split("cause `").skip(1).map(|rest| rest.split('`').next().unwrap()) {
            assert!(cause.parse::<Cause>().is_ok(), "{name}.md names a cause {cause}");
        }
    }
}
