//! The Python process with the opponents.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::ours::Array;

pub struct Opponents {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub about: Value,
    pub folder: PathBuf,
}

impl Opponents {
    pub fn start(folder: &Path, threads: usize) -> Self {
        let python = std::env::var("FULLRANK_TEST_PYTHON")
            .expect("set FULLRANK_TEST_PYTHON to a Python with torch 2.11, numpy and the client");
        let mut child = std::process::Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/opponents.py"))
            .arg(threads.to_string())
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("OPENBLAS_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python starts");
        let input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let about = read(&mut output);
        Self { child, input, output, about, folder: folder.to_path_buf() }
    }

    pub fn load(&mut self, name: &str, array: &Array) {
        let (path, dtype) = (array.path.to_str().expect("a plain path"), array.dtype);
        self.call(json!({"call": "load", "name": name, "path": path, "shape": [array.shape.0, array.shape.1], "dtype": dtype}));
    }

    /// Seconds and the result.
    pub fn call(&mut self, request: Value) -> (f64, Value) {
        writeln!(self.input, "{request}").expect("python reads");
        let answer = read(&mut self.output);
        (answer["seconds"].as_f64().unwrap_or(f64::NAN), answer["result"].clone())
    }
}

fn read(output: &mut impl BufRead) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).expect("python answers");
    serde_json::from_str(&line).expect("python's last words are above")
}

impl Drop for Opponents {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
