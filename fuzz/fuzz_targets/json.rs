//! No bytes panic the json decoder or what makes a batch of its tensors: `cargo fuzz run json`.

#![no_main]

use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::json;
use fullrank::analysis::parameters::Parameters;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((tensors, parameters)) = json::decode(data, Parameters::default()) {
        let _ = EmbeddingBatch::new(tensors, parameters);
    }
});
