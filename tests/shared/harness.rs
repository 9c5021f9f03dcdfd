//! A real service on sockets of port 0, and what tests send to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use clap::Parser;
use fullrank::app::{self, Listeners};
use fullrank::config::{Cli, Command, Config};
use fullrank::wire::proto;
use fullrank::wire::proto::monitor_client::MonitorClient;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

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

    /// What /metrics says.
    pub fn metrics(&self) -> Metrics {
        let response = self.get("/metrics").send().unwrap();
        assert_eq!(response.status(), 200);
        Metrics(response.text().unwrap())
    }

    /// One connection, bytes as they are.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // Only a test that fails waits that long.
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes as they are (for what a client library will not send), and reads until the server closes.
    pub fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read_to_end(&mut stream)
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

/// A scrape.
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a series such as `fullrank_rows_total` or `fullrank_verdict{run="r",...}`.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Reads until the other side closes; a reset counts as closed.
pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A named array: type, shape, little-endian bytes.
pub type Array<'a> = (&'a str, safetensors::Dtype, Vec<usize>, Vec<u8>);

/// Arrays as a safetensors body, with parameters in its metadata.
pub fn body(arrays: &[Array<'_>], metadata: &[(&str, &str)]) -> Vec<u8> {
    let views = arrays.iter().map(|(name, dtype, shape, bytes)| {
        (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let texts = metadata.iter().map(|(name, text)| ((*name).to_string(), (*text).to_string()));
    safetensors::serialize(views, (!metadata.is_empty()).then(|| texts.collect())).unwrap()
}

/// f64 values as an array.
pub fn f64s<'a>(name: &'a str, shape: &[usize], values: &[f64]) -> Array<'a> {
    (name, safetensors::Dtype::F64, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// A gRPC client with a runtime of its own.
pub struct Grpc {
    pub runtime: Runtime,
    pub client: MonitorClient<Channel>,
}

impl Grpc {
    pub fn connect(server: &Server) -> Self {
        Self::with_origin(server, &server.url("/"))
    }

    /// Says that it talks to another host.
    pub fn with_origin(server: &Server, origin: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(server.url("/")).unwrap().origin(origin.parse().unwrap());
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { client: MonitorClient::new(channel), runtime }
    }

    /// One push: the parts as they are.
    pub fn push_parts(&mut self, parts: Vec<proto::push_request::Part>) -> Result<proto::PushResponse, tonic::Status> {
        let messages: Vec<_> = parts.into_iter().map(|part| proto::PushRequest { part: Some(part) }).collect();
        let stream = futures_util::stream::iter(messages);
        self.runtime.block_on(self.client.push(stream)).map(tonic::Response::into_inner)
    }

    /// One push of one tensor.
    pub fn push(&mut self, header: proto::PushHeader, bytes: &[u8]) -> Result<proto::PushResponse, tonic::Status> {
        use proto::push_request::Part;
        let chunks = bytes.chunks(1 << 20).map(|chunk| Part::Chunk(bytes::Bytes::copy_from_slice(chunk)));
        self.push_parts(std::iter::once(Part::Header(header)).chain(chunks).collect())
    }
}

/// The header of a push of one f32 `z` to run `r`, layer `l`; `query` as over HTTP.
pub fn grpc_header(query: &str, rows: u64, dim: u64) -> proto::PushHeader {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    proto::PushHeader {
        run: "r".to_string(),
        layer: "l".to_string(),
        parameters: pairs.map(|(name, text)| (name.to_string(), text.to_string())).collect(),
        tensors: vec![proto::Tensor { name: "z".to_string(), dtype: "F32".to_string(), shape: vec![rows, dim] }],
    }
}

/// f32 values, little-endian.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A report without what differs from run to run.
pub fn steady(report: &Value) -> Value {
    let mut report = report.clone();
    let object = report.as_object_mut().unwrap();
    object.remove("run");
    object.remove("closed_at");
    report
}
