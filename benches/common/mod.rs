//! A service on a free port, and the plainest client there is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use clap::Parser;
use fullrank::app::{self, Listeners};
use fullrank::config::{Cli, Command};
use kernels::cpu::Cpu;
use tokio::sync::oneshot;

/// A running service.
pub struct Service {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub fn start() -> Self {
        let argv = ["fullrank", "serve", "--listen", "127.0.0.1:0", "--log", "error"];
        let Command::Serve(args) = Cli::parse_from(argv).command else { panic!("it says serve") };
        let config = args.check().expect("defaults are valid");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let main = runtime.block_on(tokio::net::TcpListener::bind(config.listen)).expect("a free port");
        let address = main.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let backend = Arc::new(Cpu::new(config.threads).expect("threads"));
        let listeners = Listeners { main, metrics: None };
        let thread = std::thread::spawn(move || {
            runtime.block_on(app::run_with(config, listeners, stopped, backend)).expect("it serves");
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One keep-alive HTTP/1.1 connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the service listens");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, buffer: vec![0; 1 << 16] }
    }

    /// Status of the answer, read whole.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> u16 {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).expect("the service reads");
        self.stream.write_all(body).expect("the service reads");
        let mut answer: Vec<u8> = Vec::new();
        loop {
            let count = self.stream.read(&mut self.buffer).expect("the service answers");
            assert!(count > 0, "the service closed the connection");
            answer.extend(&self.buffer[..count]);
            if let Some(end) = whole(&answer) {
                assert_eq!(end, answer.len(), "one answer at a time");
                return std::str::from_utf8(&answer[9..12]).expect("digits").parse().expect("a status");
            }
        }
    }
}

/// Where the answer ends, once its header and as many bytes as Content-Length says are there.
fn whole(answer: &[u8]) -> Option<usize> {
    let header = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..header]).expect("a text header").to_ascii_lowercase();
    let length: usize = text.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim().parse().ok()?;
    (answer.len() >= header + length).then_some(header + length)
}

/// A safetensors body of one f32 `z`.
pub fn body(rows: usize, dim: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let data: Vec<u8> = (0..rows * dim).flat_map(|_| next().to_le_bytes()).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows, dim], &data).expect("the sizes agree");
    safetensors::serialize([("z", view)], None).expect("one tensor")
}

/// Reads `length` bytes into one reused buffer, then answers with one byte: what the machine's loopback can do.
pub fn bare_socket(length: usize) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut server, _) = listener.accept().expect("a client");
    std::thread::spawn(move || {
        let mut buffer = vec![0u8; length];
        while server.read_exact(&mut buffer).is_ok() && server.write_all(&[1]).is_ok() {}
    });
    client.set_nodelay(true).expect("a socket option");
    client
}

/// The middle value, and the spread between the quartiles.
pub fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.75) - at(0.25))
}
