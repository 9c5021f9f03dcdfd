//! No bytes panic a decoder, and what a decoder takes it takes right.

use bytes::Bytes;
use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::{DecodeError, Decoded, json, npy, safetensors};
use fullrank::analysis::parameters::Parameters;
use proptest::prelude::*;

fn all(body: Vec<u8>) {
    let bytes = Bytes::from(body);
    let whole = |decoded: Result<Decoded, DecodeError>| drop(decoded.and_then(|(t, p)| EmbeddingBatch::new(t, p)));
    whole(safetensors::decode(&bytes, Parameters::default()));
    whole(npy::decode(&bytes).map(|tensor| (vec![tensor], Parameters::default())));
    whole(json::decode(&bytes, Parameters::default()));
}

fn safetensors_of(header: &str, data: usize) -> Vec<u8> {
    let mut body = (header.len() as u64).to_le_bytes().to_vec();
    body.extend(header.as_bytes());
    body.extend(vec![0u8; data]);
    body
}

fn npy_of(version: u8, header: &str, data: usize) -> Vec<u8> {
    let mut body = b"\x93NUMPY".to_vec();
    body.extend([version, 0]);
    match version {
        1 => body.extend((header.len() as u16).to_le_bytes()),
        _ => body.extend((header.len() as u32).to_le_bytes()),
    }
    body.extend(header.as_bytes());
    body.extend(vec![0u8; data]);
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..512)) {
        all(body);
    }

    #[test]
    fn any_safetensors_header(
        name in prop_oneof![
            "[a-z]{1,8}[0-9]{0,3}".boxed(),
            prop::sample::select(vec!["z", "z1", "pre_bn", "count", "mean", "m2", "ids", "center"]).prop_map(str::to_string).boxed(),
        ],
        dtype in prop::sample::select(vec!["F64", "F32", "F16", "BF16", "I64", "I32", "I8", "BOOL", "X"]),
        shape in prop::collection::vec(prop::sample::select(vec![0u64, 1, 2, 3, 1 << 31, 1 << 32, u64::MAX]), 0..4),
        offsets in (0u64..40, 0u64..40),
        data in 0usize..40,
        cut in 0usize..64,
    ) {
        let header = format!("{{\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{},{}]}}}}", offsets.0, offsets.1);
        let mut body = safetensors_of(&header, data);
        body.truncate(body.len().saturating_sub(cut / 8));
        all(body);
    }

    #[test]
    fn any_npy_header(
        version in 0u8..5,
        descr in prop::sample::select(vec!["<f8", "<f4", "<f2", ">f4", "|O", "<i4", "<c16", "[('a','<f4')]", ""]),
        fortran in prop::sample::select(vec!["True", "False", "None"]),
        shape in prop::sample::select(vec!["()", "(3,)", "(2,3)", "(2,3,4)", "(0,3)", "(18446744073709551615,2)", "(99999999999999999999,)", "(-1,2)"]),
        data in 0usize..64,
    ) {
        all(npy_of(version, &format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n"), data));
    }

    #[test]
    fn any_json(text in "[\\[\\]{}\",:0-9a-z.e-]{0,80}") {
        all(text.into_bytes());
    }

    #[test]
    fn bit_flips(position in 0usize..200, bit in 0u8..8) {
        let mut body = safetensors_of("{\"z\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16);
        let position = position % body.len();
        body[position] ^= 1 << bit;
        all(body);
    }
}

#[test]
fn headers_are_bounded_before_they_are_read() {
    let mut huge = (1u64 << 40).to_le_bytes().to_vec();
    huge.extend([0; 64]);
    let refused = safetensors::decode(&huge.into(), Parameters::default());
    assert!(matches!(refused, Err(DecodeError::TooLarge { limit: 65536, .. })), "{refused:?}");
    let refused = npy::decode(&npy_of(2, &" ".repeat(70_000), 0).into());
    assert!(matches!(refused, Err(DecodeError::TooLarge { limit: 65536, .. })), "{refused:?}");
}

#[test]
fn both_memory_orders_are_the_same_matrix() {
    let values: Vec<f32> = (0..6u8).map(f32::from).collect();
    let bytes = |order: &[usize]| order.iter().flat_map(|i| values[*i].to_le_bytes()).collect::<Vec<u8>>();
    let read = |fortran: &str, order: &[usize]| {
        let mut body = npy_of(1, &format!("{{'descr': '<f4', 'fortran_order': {fortran}, 'shape': (2, 3), }}\n"), 0);
        body.extend(bytes(order));
        let batch = EmbeddingBatch::new(vec![npy::decode(&body.into()).unwrap()], Parameters::default()).unwrap();
        let fullrank::analysis::part::Payload::Views(views) = &batch.parts[0].payload else { unreachable!("rows") };
        let mut out = vec![0.0; 6];
        views[0].read(0, 2, &mut out);
        out
    };
    assert_eq!(read("False", &[0, 1, 2, 3, 4, 5]), read("True", &[0, 3, 1, 4, 2, 5]));
}

#[test]
fn parameters_travel_in_json_and_metadata() {
    let (tensors, parameters) = json::decode(
        b"{\"z\": [[1, 2]], \"window\": 3, \"last\": true, \"method\": \"byol\", \"loss\": -0.5}",
        Parameters::default(),
    )
    .unwrap();
    assert_eq!((tensors.len(), parameters.window, parameters.last), (1, Some(3), Some(true)));
    assert_eq!(parameters.scalars["loss"], -0.5);
    let header = "{\"__metadata__\":{\"format\":\"pt\",\"window\":\"3\"},\"z\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}";
    let mut query = Parameters::default();
    query.set("window", "4").unwrap();
    assert!(matches!(safetensors::decode(&safetensors_of(header, 8).into(), query), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_count_may_be_a_scalar() {
    let header = "{\"count\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},\
                   \"m2\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},\
                   \"mean\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[16,24]}}";
    let mut body = safetensors_of(header, 0);
    for value in [128.0f64, 3.0, 0.5] {
        body.extend(value.to_le_bytes());
    }
    let (tensors, parameters) = safetensors::decode(&body.into(), Parameters::default()).unwrap();
    assert_eq!(EmbeddingBatch::new(tensors, parameters).unwrap().parts[0].rows(), 128);
}
