//! No bytes panic the npy decoder or what makes a batch of its tensors: `cargo fuzz run npy`.

#![no_main]

use bytes::Bytes;
use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::npy;
use fullrank::analysis::parameters::Parameters;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((tensors, parameters)) = npy::decode(&Bytes::copy_from_slice(data)).map(|tensor| (vec![tensor], Parameters::default())) {
        let _ = EmbeddingBatch::new(tensors, parameters);
    }
});
