//! Arguments, telemetry, exit code. The only file that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use fullrank::app::{self, Listeners};
use fullrank::config::{AnalyzeArgs, Cli, Command, Config};
use fullrank::{analyze, demo, telemetry, web};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => args.check().and_then(|config| block_on(serve(config))),
        Command::Demo(args) => {
            let once = args.once;
            args.check().and_then(|config| block_on(run_demo(config, once)))
        }
        Command::Analyze(args) => analyze_files(&args),
        Command::Openapi => {
            println!("{:#}", web::openapi_document());
            Ok(ExitCode::SUCCESS)
        }
        Command::ComputeWorker(args) => app::compute_worker(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|complaint| {
        for line in complaint.lines() {
            eprintln!("fullrank: {line}");
        }
        ExitCode::from(2)
    })
}

fn block_on(work: impl Future<Output = Result<ExitCode, String>>) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(64)
        .thread_name("doors")
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
    telemetry::init(&config.log, config.log_json)?;
    let listeners = bind(&config).await?;
    app::run(config, listeners, stop_signal()).await.map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

async fn run_demo(config: Config, once: bool) -> Result<ExitCode, String> {
    telemetry::init(if config.log == "info" { "warn" } else { &config.log }, config.log_json)?;
    let listeners = bind(&config).await?;
    let address = listeners.main.local_addr().map_err(|error| error.to_string())?;
    let (stop, stopped) = oneshot::channel();
    let token = config.access.token().map(str::to_string);
    let service = tokio::spawn(app::run(config, listeners, stopped));
    println!("fullrank demo: replaying three recorded SimSiam trainings to http://{address}/");
    let as_expected = match demo::replay(address, token.as_deref(), |line| println!("{line}")).await {
        Ok(as_expected) => as_expected,
        Err(error) => {
            eprintln!("fullrank: the demo could not be replayed: {error}");
            false
        }
    };
    if !once {
        println!("\nStill serving; Ctrl-C stops it.");
        let _ = stop_signal().await;
    }
    let _ = stop.send(());
    service.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn analyze_files(args: &AnalyzeArgs) -> Result<ExitCode, String> {
    let policy = args.policy()?;
    for path in &args.files {
        let report = analyze::file(path, &policy)?;
        if args.json {
            println!("{report}");
        } else {
            println!("{}", analyze::table(&report));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fires on SIGINT or SIGTERM.
fn stop_signal() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
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
