//! Bytes through the doors against a bare socket, and what a trainer waits for.

use std::io::{Read, Write};
use std::net::TcpStream;

use fullrank::wire::proto;
use proto::monitor_client::MonitorClient;
use proto::push_request::Part;
use serde_json::json;

use crate::common::{Client, Service, bare_socket};
use crate::opponents::Opponents;
use crate::ours::{Array, seconds};
use crate::{PAIRS, Race};

const SHAPE: (usize, usize) = (16_384, 2048); // 64 MiB of bf16

pub fn run() {
    let data: Vec<u8> = (0..SHAPE.0 * SHAPE.1).flat_map(|k| [(k % 251) as u8, 0x3f + (k % 2) as u8]).collect();
    http(&data);
    grpc(&data);
}

fn body(data: &[u8]) -> Vec<u8> {
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![SHAPE.0, SHAPE.1], data);
    safetensors::serialize([("z", view.expect("the sizes agree"))], None).expect("one tensor")
}

fn send(bare: &mut TcpStream, body: &[u8]) -> f64 {
    seconds(|| {
        bare.write_all(body).expect("it reads");
        bare.read_exact(&mut [0]).expect("it answers");
    })
}

fn settle(client: &mut Client, window: usize) {
    // Each batch is merged before the next is sent.
    assert_eq!(client.request("POST", &format!("/v1/runs/i/windows/{window}/close"), b""), 200);
}

fn http(data: &[u8]) {
    let service = Service::start();
    let body = body(data);
    let (mut client, mut bare) = (Client::connect(service.address), bare_socket(body.len()));
    let mut window = 0;
    let ours = || {
        window += 1;
        let path = format!("/v1/runs/i/layers/l/batches?window={window}");
        let took = seconds(|| assert_eq!(client.request("POST", &path, &body), 202));
        settle(&mut client, window);
        took
    };
    Race {
        claim: "ingest of 64 MiB bf16 to the 202, HTTP, against a bare socket read",
        marks: Some([0.5, 0.7, 0.9]),
        pairs: PAIRS + 2,
        once: false,
    }
    .run(ours, || send(&mut bare, &body), "decoded, checked finite, queued");
}

fn grpc(data: &[u8]) {
    let service = Service::start();
    let (mut client, mut bare) = (Client::connect(service.address), bare_socket(data.len()));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let address = format!("http://{}", service.address);
    let endpoint = tonic::transport::Endpoint::from_shared(address).expect("an address");
    let mut monitor = MonitorClient::new(runtime.block_on(endpoint.connect()).expect("the service listens"));
    let mut window = 0;
    let ours = || {
        window += 1;
        let header = proto::PushHeader {
            run: "i".to_string(),
            layer: "l".to_string(),
            parameters: [("window".to_string(), window.to_string())].into(),
            tensors: vec![proto::Tensor {
                name: "z".to_string(),
                dtype: "BF16".to_string(),
                shape: vec![SHAPE.0 as u64, SHAPE.1 as u64],
            }],
        };
        let chunks = data.chunks(1 << 20).map(|chunk| Part::Chunk(bytes::Bytes::copy_from_slice(chunk)));
        let parts = std::iter::once(Part::Header(header)).chain(chunks);
        let messages: Vec<_> = parts.map(|part| proto::PushRequest { part: Some(part) }).collect();
        let took = seconds(|| {
            let stream = futures_util::stream::iter(messages);
            runtime.block_on(monitor.push(stream)).expect("accepted");
        });
        settle(&mut client, window);
        took
    };
    Race { claim: "the same by gRPC", marks: Some([0.25, 0.4, 0.6]), pairs: PAIRS + 2, once: false }.run(
        ours,
        || send(&mut bare, data),
        "the client's encoding is on the clock, too",
    );
}

/// Seconds that the training loop is held up by pushing a whole evaluation, against computing RankMe in it.
pub fn trainer(theirs: &mut Opponents, z: &Array) {
    let service = Service::start();
    theirs.load("z", z);
    let url = format!("http://{}", service.address);
    let svd = theirs.call(json!({"call": "svdvals", "z": "z"})).0;
    let ours = || theirs.call(json!({"call": "push", "url": url, "z": "z", "batch": 1024})).0;
    Race {
        claim: "trainer's blocked time per evaluation, 65,536 x 2048 bf16 pushed by 1024, against svdvals in process (once)",
        marks: Some([10.0, 25.0, 1000.0]),
        pairs: PAIRS,
        once: true,
    }
    .run(ours, || svd, "the client's `push` calls, from the first to the last");
}
