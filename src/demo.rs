//! `fullrank demo`: recorded real trainings, pushed through the HTTP door as a trainer would.
//!
//! Guarantees: what it says of a run is what the service answered. Must not: know an answer beforehand, but to compare.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tokio::net::TcpStream;

/// (recording, the state that its training ends in)
const RECORDINGS: [(&[u8], &str); 3] = [
    (include_bytes!("../examples/recordings/simsiam-healthy.safetensors"), "healthy"),
    (include_bytes!("../examples/recordings/simsiam-no-stop-gradient.safetensors"), "collapsed"),
    (include_bytes!("../examples/recordings/simsiam-no-predictor.safetensors"), "collapsed"),
];

/// The layer that the recordings were taken at.
const LAYER: &str = "projector";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A connection to the service.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    token: String,
}

impl Client {
    async fn connect(address: SocketAddr, token: Option<&str>) -> Result<Self, Error> {
        let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, address, token: token.unwrap_or("").to_string() })
    }

    async fn call(&mut self, method: &str, path: &str, body: Vec<u8>) -> Result<Value, Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/x-safetensors")
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let value: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        if status.is_success() {
            Ok(value)
        } else {
            Err(format!("{method} {path}: {status}: {}", value["detail"]).into())
        }
    }
}

/// Replays every recording; `say` gets each line of the account. True when every verdict is as expected.
///
/// # Errors
/// When the service cannot be reached or refuses a push.
pub async fn replay(address: SocketAddr, token: Option<&str>, say: impl Fn(String)) -> Result<bool, Error> {
    let mut client = Client::connect(address, token).await?;
    let mut as_expected = true;
    for (bytes, expected) in RECORDINGS {
        let run = replay_one(&mut client, bytes).await?;
        let verdict = client.call("GET", &format!("/v1/runs/{run}/verdict"), Vec::new()).await?;
        say(sentence(&run, &verdict));
        as_expected &= verdict["state"] == expected;
    }
    say(format!(
        "\nthe page     http://{address}/\nthe verdict  http://{address}/v1/runs/simsiam-no-predictor/verdict\n\
         Prometheus   http://{address}/metrics\n\nTry it:\n  curl -s 'http://{address}/v1/runs/mine/layers/z/batches?wait=true' \
         -H 'Content-Type: application/json' -d '{{\"z\": [[1,2],[-2,1],[3,-5],[4,4],[-5,1],[1,-1],[2,6],[-7,3],[0,-4],[5,2],[-3,-3],[6,-1],[-1,5],[2,-6],[-4,-2],[3,1]]}}'"
    ));
    Ok(as_expected)
}

async fn replay_one(client: &mut Client, bytes: &[u8]) -> Result<String, Error> {
    let recording = SafeTensors::deserialize(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let metadata = header.metadata().clone().ok_or("the recording has no metadata")?;
    let run = metadata.get("run").ok_or("the recording names no run")?.clone();
    let windows: Vec<Value> = serde_json::from_str(metadata.get("windows").ok_or("the recording names no windows")?)?;
    // A demo before this one may have left its runs in the data directory.
    let known = client.call("GET", "/v1/runs", Vec::new()).await?;
    if known["runs"].as_array().into_iter().flatten().any(|known| known["run"] == run.as_str()) {
        client.call("DELETE", &format!("/v1/runs/{run}"), Vec::new()).await?;
    }
    for entry in &windows {
        let window = entry["window"].as_u64().ok_or("a window without a number")?;
        let view = |name: &str| recording.tensor(&format!("{window:03}.{name}"));
        let tensors: [(&str, TensorView<'_>); 2] = [("z1", view("z1")?), ("z2", view("z2")?)];
        let body = safetensors::serialize(tensors, None)?;
        let mut path =
            format!("/v1/runs/{run}/layers/{LAYER}/batches?window={window}&last=true&wait=true&method=simsiam");
        for name in ["step", "loss"] {
            if entry[name].is_number() {
                path.push_str(&format!("&{name}={}", entry[name]));
            }
        }
        client.call("POST", &path, body).await?;
    }
    Ok(run)
}

fn sentence(run: &str, verdict: &Value) -> String {
    let word = |name: &str| verdict[name].as_str().unwrap_or("?").to_string();
    let reasons: Vec<String> = verdict["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|reason| {
            let number = |name: &str| reason[name].as_f64().unwrap_or(f64::NAN);
            format!(
                "{} {:.3} (threshold {:.3})",
                reason["measure"].as_str().unwrap_or("?"),
                number("value"),
                number("threshold")
            )
        })
        .collect();
    let why = if reasons.is_empty() { String::new() } else { format!(", {}", reasons.join(", ")) };
    let since = verdict["since_window"].as_u64().unwrap_or(0);
    format!("  {run:<26} {:<10} since window {since}: cause {}{why}", word("state"), word("cause"))
}
