//! `fullrank demo`: replays recordings of real trainings.
//!
//! Guarantees: everything it prints about a run is the service's answer. Must not: know an answer in advance, except
//! for comparison.

use reqwest::Method;

use crate::analysis::verdict::VerdictState;
use crate::client::{Client, RequestParts};
use crate::replay::{self, ReplayOverrides};
use crate::wire::views::RunList;

/// (recording, the state in which its training ends)
const RECORDINGS: [(&[u8], VerdictState); 3] = [
    (include_bytes!("../examples/recordings/simsiam-healthy.safetensors"), VerdictState::Healthy),
    (include_bytes!("../examples/recordings/simsiam-no-stop-gradient.safetensors"), VerdictState::Collapsed),
    (include_bytes!("../examples/recordings/simsiam-no-predictor.safetensors"), VerdictState::Collapsed),
];

/// Replays every recording; `say` gets each line of output. True if every verdict is as expected.
///
/// # Errors
/// If the service cannot be reached or refuses a push.
pub async fn replay(client: &Client, address: &str, say: impl Fn(String)) -> Result<bool, String> {
    let mut as_expected = true;
    for (bytes, expected) in RECORDINGS {
        let recording = replay::recording(bytes, &ReplayOverrides::default())?.ok_or("the recording has no windows")?;
        let run = recording.run.as_str();
        // An earlier demo may have left its runs in the data directory.
        let known: RunList = client.get(&["v1", "runs"], &[]).await?;
        if known.runs.iter().any(|known| known.run == run) {
            client.call(Method::DELETE, &["v1", "runs", run], RequestParts::default()).await?;
        }
        let verdict = replay::push(client, &recording, &|| ()).await?;
        say(replay::sentence(&verdict));
        as_expected &= verdict.verdict.state == expected;
    }
    say(format!(
        "\nthe page     {address}/\nthe verdict  {address}/v1/runs/simsiam-no-predictor/verdict\n\
         Prometheus   {address}/metrics\n\nTry it:\n  curl -s '{address}/v1/runs/mine/layers/z/batches?wait=true' \
         -H 'Content-Type: application/json' -d '{{\"z\": [[1,2],[-2,1],[3,-5],[4,4],[-5,1],[1,-1],[2,6],[-7,3],[0,-4],[5,2],[-3,-3],[6,-1],[-1,5],[2,-6],[-4,-2],[3,1]]}}'"
    ));
    Ok(as_expected)
}
