//! Any bytes as rows of any type, order and shape: refused, or read alike by row, column and block.

#![no_main]

use bytes::Bytes;
use kernels::rows::{Float, Order, Rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, u8, u8, Vec<u8>)| {
    let (float, by_row, count, dim, bytes) = input;
    let float = [Float::F64, Float::F32, Float::F16, Float::Bf16][usize::from(float % 4)];
    let order = if by_row { Order::RowMajor } else { Order::ColumnMajor };
    let (count, dim) = (usize::from(count), usize::from(dim));
    let Ok(rows) = Rows::new(float, order, (count, dim), Bytes::from(bytes)) else { return };
    let mut all = vec![0.0; count * dim];
    rows.read(0, count, &mut all);
    for column in 0..dim {
        for (row, value) in rows.column(column).iter().enumerate() {
            assert_eq!(value.to_bits(), all[row * dim + column].to_bits());
        }
    }
    let usable = all.iter().all(|x| x.is_finite() && x.abs() <= kernels::rows::LARGEST_VALUE);
    assert_eq!(rows.first_unusable().is_none(), usable);
});
