//! No bytes panic the safetensors decoder or what makes a batch of its tensors: `cargo fuzz run safetensors`.

#![no_main]

use bytes::Bytes;
use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::safetensors;
use fullrank::analysis::parameters::Parameters;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((tensors, parameters)) = safetensors::decode(&Bytes::copy_from_slice(data), Parameters::default()) {
        let _ = EmbeddingBatch::new(tensors, parameters);
    }
});
