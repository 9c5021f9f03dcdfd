//! The program: arguments, telemetry, exit code. Only this file prints.

#![allow(clippy::print_stderr)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::analysis::report::Report;
use crate::app::{self, Listeners};
use crate::client::Client;
use crate::config::{self, AnalyzeArgs, Cli, Command, Config, HealthcheckArgs, ReplayArgs, ReportArgs, RunsArgs};
use crate::wire::views::{LayerSummary, ReportList, RunSummary};
use crate::{analyze, dashboards, demo, plot, replay, telemetry, terminal, web};

/// Runs the sub-command that the process's arguments name, to its end.
#[must_use]
pub fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let command = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.command,
        Err(error) => error.exit(),
    };
    let result = match command {
        Command::Serve(args) => args.check().and_then(|config| block_on(serve(config))),
        Command::Demo(args) => {
            let once = args.once;
            args.check().and_then(|config| block_on(run_demo(config, once)))
        }
        Command::Analyze(args) => analyze_files(&args),
        Command::Replay(args) => block_on(replay_files(args)),
        Command::Report(args) => block_on(report(args)),
        Command::Runs(args) => block_on(runs(args)),
        Command::Healthcheck(args) => block_on(healthcheck(args)),
        Command::CheckConfig(args) => args.check().map(|_| {
            if let (Some(flags), Some(given)) = (Cli::command().find_subcommand("check-config"), matches.subcommand()) {
                say(config::effective(flags, given.1).trim_end());
            }
            ExitCode::SUCCESS
        }),
        Command::Openapi => {
            say(format_args!("{:#}", web::openapi_document()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fullrank", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { dir } => man(dir.as_deref()),
        Command::Dashboards { dir } => write_dashboards(&dir),
        Command::ComputeWorker(args) => app::compute_worker(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|complaint| {
        for line in complaint.lines() {
            eprintln!("fullrank: {line}");
        }
        ExitCode::from(2)
    })
}

/// Prints a line. If nobody reads any more, as after `head`, the work is still done.
fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn block_on(work: impl Future<Output = Result<ExitCode, String>>) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(64)
        .thread_name("sockets")
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(work)
}

async fn bind(config: &Config) -> Result<Listeners, String> {
    let listen = |address| async move {
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let main = listen(config.listen).await?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    Ok(Listeners { main, metrics })
}

async fn serve(config: Config) -> Result<ExitCode, String> {
    let traces = telemetry::init(&config.log, config.log_json, config.otlp_endpoint.as_deref())?;
    let listeners = bind(&config).await?;
    app::run(config, listeners, stop_signal()).await.map_err(|error| error.to_string())?;
    let _ = tokio::task::spawn_blocking(|| traces.flush()).await;
    Ok(ExitCode::SUCCESS)
}

async fn run_demo(config: Config, once: bool) -> Result<ExitCode, String> {
    let log = if config.log == "info" { "warn" } else { &config.log };
    let traces = telemetry::init(log, config.log_json, config.otlp_endpoint.as_deref())?;
    let listeners = bind(&config).await?;
    let address = format!("http://{}", listeners.main.local_addr().map_err(|error| error.to_string())?);
    let (stop, stopped) = oneshot::channel();
    let url = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let client = Client::new(url, config.access.token().map(str::to_string))?;
    let service = tokio::spawn(app::run(config, listeners, stopped));
    say(format_args!("fullrank demo: replaying three recorded SimSiam trainings to {address}/"));
    let as_expected = match demo::replay(&client, &address, say).await {
        Ok(as_expected) => as_expected,
        Err(error) => {
            eprintln!("fullrank: could not replay the demo: {error}");
            false
        }
    };
    if !once {
        say("\nStill serving; Ctrl-C stops it.");
        let _ = stop_signal().await;
    }
    let _ = stop.send(());
    service.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let _ = tokio::task::spawn_blocking(|| traces.flush()).await;
    Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn analyze_files(args: &AnalyzeArgs) -> Result<ExitCode, String> {
    let overrides = args.overrides()?;
    let mut reports = Vec::new();
    for path in &args.files {
        let bar = bar(0, "{msg} {bar:40} {bytes} of {total_bytes}");
        bar.set_message(path.display().to_string());
        let report = analyze::file(path, &overrides, &|read, all| {
            bar.set_length(all);
            bar.set_position(read);
        });
        bar.finish_and_clear();
        let report = report?;
        if args.json {
            say(json(&report.report));
        } else {
            say(terminal::report(&report.report));
        }
        reports.extend(args.plot.is_some().then_some(report));
    }
    args.plot.as_deref().map_or(Ok(()), |path| plot::draw(path, &reports))?;
    Ok(ExitCode::SUCCESS)
}

/// A progress bar on standard error, shown only on a terminal.
fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

async fn replay_files(args: ReplayArgs) -> Result<ExitCode, String> {
    let client = args.service.client()?;
    for recording in replay::read(&args.files, &args.overrides())? {
        let bar = bar(recording.pushes.len() as u64, "{msg} {bar:40} {pos} of {len} windows");
        bar.set_message(recording.run.clone());
        let verdict = replay::push(&client, &recording, &|| bar.inc(1)).await;
        bar.finish_and_clear();
        say(replay::sentence(&verdict?));
    }
    Ok(ExitCode::SUCCESS)
}

async fn report(args: ReportArgs) -> Result<ExitCode, String> {
    let client = args.service.client()?;
    let run: RunSummary<LayerSummary<Report>> = client.get(&["v1", "runs", &args.run], &[]).await?;
    let names: Vec<&str> = run.layers.iter().map(|layer| layer.layer.as_str()).collect();
    if let Some(wanted) = args.layer.as_deref().filter(|wanted| !names.contains(wanted)) {
        return Err(format!("run {} has no layer {wanted}; it has: {}", args.run, names.join(", ")));
    }
    let mut reports = Vec::new();
    for layer in run.layers {
        if args.layer.as_ref().is_some_and(|wanted| *wanted != layer.layer) {
            continue;
        }
        let Some(window) = args.window else {
            reports.extend(layer.newest);
            continue;
        };
        let only = [("from", window.to_string()), ("to", window.to_string())];
        let page: ReportList = client.get(&["v1", "runs", &args.run, "layers", &layer.layer, "reports"], &only).await?;
        reports.extend(page.reports);
    }
    if reports.is_empty() {
        let of = args.window.map_or("a closed window".to_string(), |window| format!("window {window} closed"));
        return Err(format!("run {} has no report yet: no layer has {of}", args.run));
    }
    for report in reports {
        if args.json {
            say(json(&report));
        } else {
            say(terminal::report(&report));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn json(report: &Report) -> String {
    // Numbers, texts and maps by name: writing a report cannot fail.
    serde_json::to_string(report).unwrap_or_default()
}

async fn runs(args: RunsArgs) -> Result<ExitCode, String> {
    let client = args.service.client()?;
    if args.json {
        say(client.get::<Value>(&["v1", "runs"], &[]).await?);
    } else {
        say(terminal::runs(&client.get(&["v1", "runs"], &[]).await?).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

async fn healthcheck(args: HealthcheckArgs) -> Result<ExitCode, String> {
    match args.service.client()?.get::<Value>(&["readyz"], &[]).await {
        Ok(_) => {
            say("ready");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("fullrank: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn man(dir: Option<&Path>) -> Result<ExitCode, String> {
    let mut page = Vec::new();
    let written = match dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir),
        None => clap_mangen::Man::new(Cli::command()).render(&mut page),
    };
    written.map_err(|error| format!("could not write the manual: {error}"))?;
    if dir.is_none() {
        say(String::from_utf8_lossy(&page).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn write_dashboards(dir: &Path) -> Result<ExitCode, String> {
    let wrong = |path: &Path, error: &std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(dir).map_err(|error| wrong(dir, &error))?;
    for (name, dashboard) in dashboards::FILES {
        let path = dir.join(name);
        std::fs::write(&path, dashboard).map_err(|error| wrong(&path, &error))?;
        say(path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Fires on SIGINT or SIGTERM. SIGTERM is handled from here on: it may follow directly after READY=1.
fn stop_signal() -> oneshot::Receiver<()> {
    #[cfg(unix)]
    use tokio::signal::unix::{SignalKind, signal};

    let (sender, receiver) = oneshot::channel();
    #[cfg(unix)]
    let terminate = signal(SignalKind::terminate());
    tokio::spawn(async move {
        #[cfg(unix)]
        {
            let Ok(mut terminate) = terminate else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
        let _ = sender.send(());
    });
    receiver
}
