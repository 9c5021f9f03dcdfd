//! A real service on sockets of port 0, and what tests send to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use clap::Parser;
use fullrank::app::{self, Listeners};
use fullrank::compute::Backend;
use fullrank::compute::cpu::Cpu;
use fullrank::config::{Cli, Command, Config};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A service under test; it drains when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub client: Client,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What `fullrank serve` makes of these flags.
pub fn config(flags: &[&str]) -> Config {
    let argv = ["fullrank", "serve", "--listen", "127.0.0.1:0"].iter().chain(flags);
    let Command::Serve(args) = Cli::try_parse_from(argv).unwrap().command else { unreachable!("it says serve") };
    args.check().unwrap()
}

impl Server {
    pub fn start(flags: &[&str]) -> Self {
        let backend: Arc<dyn Backend> = Arc::new(Cpu::new(2).unwrap());
        Self::with_backend(flags, backend)
    }

    pub fn with_backend(flags: &[&str], backend: Arc<dyn Backend>) -> Self {
        let config = config(flags);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let main = runtime.block_on(TcpListener::bind(config.listen)).unwrap();
        let address = main.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let listeners = Listeners { main, metrics: None };
        let thread =
            std::thread::spawn(move || runtime.block_on(app::run_with(config, listeners, stopped, backend)).unwrap());
        let client = Client::builder().timeout(std::time::Duration::from_secs(120)).build().unwrap();
        Self { address, client, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// GET that must answer 200 with JSON.
    pub fn json(&self, path: &str) -> Value {
        let response = self.get(path).send().unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().unwrap()
    }

    /// Pushes a safetensors body to run `r`, layer `l` unless `place` says otherwise ("run/layer?query" or "?query").
    pub fn push(&self, place: &str, body: Vec<u8>) -> Response {
        let (names, query) = place.split_once('?').unwrap_or((place, ""));
        let (run, layer) = if names.is_empty() { ("r", "l") } else { names.split_once('/').unwrap() };
        self.post(&format!("/v1/runs/{run}/layers/{layer}/batches?{query}"))
            .header("content-type", "application/x-safetensors")
            .body(body)
            .send()
            .unwrap()
    }

    /// A push that must be answered with a report.
    pub fn report(&self, place: &str, body: Vec<u8>) -> Value {
        let response = self.push(&format!("{place}{}wait=true", if place.contains('?') { "&" } else { "?" }), body);
        let status = response.status();
        let value: Value = response.json().unwrap();
        assert_eq!(status, 200, "{value}");
        value
    }

    /// Drains and stops, as SIGTERM does.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// A refusal: status, code word, and the whole problem document, whose shape is checked.
pub fn problem(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let value: Value = response.json().unwrap();
    assert_eq!(value["status"], status);
    for key in ["type", "title", "detail", "code"] {
        assert!(value[key].is_string(), "{key} in {value}");
    }
    (status, value["code"].as_str().unwrap().to_string(), value)
}

/// Row-major f32 arrays as a safetensors body.
pub fn f32_body(tensors: &[(&str, usize, usize, &[f32])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| t.3.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, rows, dim, _), bytes)| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![*rows, *dim], bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// `rows` x `dim` standard normal values.
pub fn gaussian(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..rows * dim).map(|_| random.sample::<f32, _>(rand_distr::StandardNormal)).collect()
}

/// One `z` of standard normal values.
pub fn gaussian_body(rows: usize, dim: usize, seed: u64) -> Vec<u8> {
    f32_body(&[("z", rows, dim, &gaussian(rows, dim, seed))])
}
