//! The innermost loops of every product: an 8 x W tile of A^T B, for the widest vectors of this processor.
//!
//! Guarantees: each entry is summed in row order by fused multiply-adds (products and sums rounded separately in the
//! portable tile), so the same processor gives the same bits. Must not: allocate, or know what the numbers are.
//!
//! Why our own code: measured on one core of an AVX-512 machine, n = 4096, d = 2048, faer's f32 triangular product and
//! libtorch's sgemm reach between a third and a half of the multipliers' peak, these tiles over 0.9 of it (figures in
//! `benches/README.md`).
//!
//! A panel holds W neighbouring columns of a block of rows, lane by lane (one row per lane; for bf16 pairs two rows),
//! so lane k of column c is at k W + c. The left operand of a tile is 8 columns inside a panel, the right one a whole
//! panel: the same packing serves both sides.

#![allow(unsafe_code)]

/// Columns of the left operand in a tile. With three vectors per side, 24 accumulators, three vectors and a broadcast
/// fit 32 registers, and 24 independent sums hide the latency of the adders.
pub(super) const TILE_ROWS: usize = 8;
/// W in 32-bit lanes: three vectors of 512 bits.
pub(super) const WIDTH_32: usize = 48;
/// W in 64-bit lanes.
pub(super) const WIDTH_64: usize = 24;

/// Which entries of the product exist, and where: row by row in one slice.
#[derive(Clone, Copy, Debug)]
pub(super) enum ProductShape {
    /// Row i holds columns 0 to i: a packed lower triangle.
    Lower,
    /// Every row holds this many columns.
    Full(usize),
}

impl ProductShape {
    pub(super) fn start(self, i: usize) -> usize {
        match self {
            ProductShape::Lower => i * (i + 1) / 2,
            ProductShape::Full(width) => i * width,
        }
    }

    /// One past the last column of row `i`.
    pub(super) fn end(self, i: usize) -> usize {
        match self {
            ProductShape::Lower => i + 1,
            ProductShape::Full(width) => width,
        }
    }
}

/// Where a tile is added.
pub(super) struct TilePlace<'a> {
    /// Rows of the product, from some row on.
    pub(super) out: &'a mut [f64],
    /// The index of that row's start in the whole product.
    pub(super) base: usize,
    pub(super) shape: ProductShape,
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) height: usize,
}

/// Adds the 8 x W product of `lanes` lanes.
pub(super) type Add<T> = unsafe fn(left: *const T, right: *const T, lanes: usize, to: &mut TilePlace<'_>);

/// A tile for lanes of type `T`, chosen for this processor.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    add: Add<T>,
    /// W.
    pub(super) width: usize,
}

impl<T> Tile<T> {
    /// Adds the product of 8 columns from column `offset` of the panel `left` and all columns of the panel `right`.
    pub(super) fn add(&self, left: &[T], offset: usize, right: &[T], to: &mut TilePlace<'_>) {
        assert!(left.len() == right.len() && left.len().is_multiple_of(self.width) && offset + TILE_ROWS <= self.width);
        assert!((1..=TILE_ROWS).contains(&to.height));
        if left.is_empty() {
            return;
        }
        // SAFETY: both panels hold `lanes` times W values; a tile reads W values of `right` and 8 of `left` from
        // column `offset` on in each lane, and offset + 8 <= W. It writes to `to` through checked slices only. `add` was
        // chosen by what the processor reports at run time.
        unsafe { (self.add)(left.as_ptr().add(offset), right.as_ptr(), left.len() / self.width, to) }
    }
}

/// A left operand that is not packed: column r of lane k stands at r `across` + k `along`.
#[derive(Clone, Copy)]
pub(super) struct Strided<P> {
    /// The first value, or a slice that begins with it.
    pub(super) values: P,
    /// From one column to the next.
    pub(super) across: usize,
    /// From one lane to the next.
    pub(super) along: usize,
}

/// Adds the product of `lanes` lanes.
type AddStrided = unsafe fn(left: Strided<*const f64>, right: *const f64, lanes: usize, to: &mut TilePlace<'_>);

/// A tile of f64 lanes whose left operand is not packed.
#[derive(Clone, Copy)]
pub(super) struct StridedTile {
    add: AddStrided,
}

impl StridedTile {
    /// Adds the product of as many columns of `left` as the tile is high, and all columns of the panel `right`.
    pub(super) fn add(&self, left: Strided<&[f64]>, right: &[f64], to: &mut TilePlace<'_>) {
        let Strided { values, across, along } = left;
        let lanes = right.len() / WIDTH_64;
        assert!(right.len().is_multiple_of(WIDTH_64) && (1..=TILE_ROWS).contains(&to.height));
        if lanes == 0 {
            return;
        }
        let last = (to.height - 1).checked_mul(across).zip((lanes - 1).checked_mul(along));
        let last = last.and_then(|(column, lane)| column.checked_add(lane));
        assert!(last.is_some_and(|last| last < values.len()));
        // SAFETY: `right` holds `lanes` times W values; of `left` the tile reads columns below `to.height` of lanes below
        // `lanes`, the last of which is inside. It writes to `to` through checked slices only. `add` was chosen by what
        // the processor reports at run time.
        unsafe { (self.add)(Strided { values: values.as_ptr(), across, along }, right.as_ptr(), lanes, to) }
    }
}

pub(super) struct Tiles {
    /// f32 lanes, summed in f32.
    pub(super) f32: Tile<f32>,
    /// f64 lanes.
    pub(super) f64: Tile<f64>,
    /// The same, with a left operand that is not packed.
    pub(super) f64_strided: StridedTile,
    /// Pairs of bf16 in one lane, the earlier row in the low half; products exact, summed in f32. `None` if the
    /// processor lacks the instruction.
    pub(super) bf16: Option<Tile<u32>>,
}

impl Tiles {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn detect() -> Self {
        if is_x86_feature_detected!("avx512f") {
            let bf16 = is_x86_feature_detected!("avx512bf16").then_some(Tile { add: avx512_bf16, width: WIDTH_32 });
            return Self {
                f32: Tile { add: avx512_f32, width: WIDTH_32 },
                f64: Tile { add: avx512_f64, width: WIDTH_64 },
                f64_strided: StridedTile { add: avx512_f64_strided },
                bf16,
            };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Self::avx2();
        }
        Self::portable()
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn detect() -> Self {
        Self::portable()
    }

    #[cfg(target_arch = "x86_64")]
    fn avx2() -> Self {
        Self {
            f32: Tile { add: avx2_f32, width: WIDTH_32 },
            f64: Tile { add: avx2_f64, width: WIDTH_64 },
            f64_strided: StridedTile { add: avx2_f64_strided },
            bf16: None,
        }
    }

    fn portable() -> Self {
        Self {
            f32: Tile { add: portable::<f32, WIDTH_32>, width: WIDTH_32 },
            f64: Tile { add: portable::<f64, WIDTH_64>, width: WIDTH_64 },
            f64_strided: StridedTile { add: portable_strided },
            bf16: None,
        }
    }
}

/// Adds a finished tile to the product. Inlined into each tile, so that it is compiled for the tile's vectors.
#[inline(always)]
pub(super) fn add_tile<T: Copy + Into<f64>, const W: usize>(tile: &[[T; W]; TILE_ROWS], to: &mut TilePlace<'_>) {
    for (r, values) in tile.iter().enumerate().take(to.height) {
        let row = to.row + r;
        let width = W.min(to.shape.end(row).saturating_sub(to.column));
        let start = to.shape.start(row) + to.column - to.base;
        let out = &mut to.out[start..start + width];
        if let Ok(out) = <&mut [f64; W]>::try_from(&mut *out) {
            for (out, value) in out.iter_mut().zip(values) {
                *out += (*value).into();
            }
        } else {
            for (out, value) in out.iter_mut().zip(values) {
                *out += (*value).into();
            }
        }
    }
}

/// A tile of `$rows` x `$columns` sums at a time, as many as the registers hold, with the given instructions. `$left`
/// and `$strides` locate column r of lane k of the left operand.
#[cfg(target_arch = "x86_64")]
macro_rules! tile {
    ($name:ident, $features:literal, ($lane:ty, $sum:ty, $width:ident), ($rows:literal x $columns:literal by $vector:literal),
     ($left:ident: $left_type:ty, $pointer:expr, $across:expr, $along:expr),
     ($zero:ident, $load:expr, $broadcast:expr, $multiply_add:expr, $store:ident)) => {
        /// # Safety
        /// The processor has the features; `right` is followed by `lanes` times W values; every column below
        /// `to.height` of the left operand's lanes can be read.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name($left: $left_type, right: *const $lane, lanes: usize, to: &mut TilePlace<'_>) {
            const VECTORS: usize = $columns / $vector;
            let mut tile = [[<$sum>::default(); $width]; TILE_ROWS];
            for row in (0..TILE_ROWS).step_by($rows) {
                // Rows beyond the end repeat the last one; their sums are not added.
                let lefts: [_; $rows] = std::array::from_fn(|r| {
                    let r = (row + r).min(to.height - 1);
                    // SAFETY: a column below `to.height`.
                    unsafe { $pointer.add(r * $across) }
                });
                for column in (0..$width).step_by($columns) {
                    let mut sums = [[$zero(); VECTORS]; $rows];
                    for lane in 0..lanes {
                        // SAFETY: by this function's contract; lane < lanes and column + v < W.
                        unsafe {
                            let right = right.add(lane * $width + column);
                            let vectors: [_; VECTORS] = std::array::from_fn(|v| $load(right.add(v * $vector)));
                            for (sums, left) in sums.iter_mut().zip(lefts) {
                                let x = $broadcast(*left.add(lane * $along));
                                for (sum, vector) in sums.iter_mut().zip(vectors) {
                                    *sum = $multiply_add(x, vector, *sum);
                                }
                            }
                        }
                    }
                    for (r, sums) in sums.iter().enumerate() {
                        for (v, sum) in sums.iter().enumerate() {
                            let out = &mut tile[row + r][column + v * $vector..][..$vector];
                            // SAFETY: `out` holds one vector.
                            unsafe { $store(out.as_mut_ptr(), *sum) };
                        }
                    }
                }
            }
            add_tile(&tile, to);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Strided, TILE_ROWS, TilePlace, WIDTH_32, WIDTH_64, add_tile};

    tile!(avx512_f32, "avx512f", (f32, f32, WIDTH_32), (8 x 48 by 16), (left: *const f32, left, 1, WIDTH_32),
        (_mm512_setzero_ps, |p| _mm512_loadu_ps(p), |x| _mm512_set1_ps(x), |x, y, sum| _mm512_fmadd_ps(x, y, sum), _mm512_storeu_ps));
    tile!(avx512_f64, "avx512f", (f64, f64, WIDTH_64), (8 x 24 by 8), (left: *const f64, left, 1, WIDTH_64),
        (_mm512_setzero_pd, |p| _mm512_loadu_pd(p), |x| _mm512_set1_pd(x), |x, y, sum| _mm512_fmadd_pd(x, y, sum), _mm512_storeu_pd));
    tile!(avx512_f64_strided, "avx512f", (f64, f64, WIDTH_64), (8 x 24 by 8),
        (left: Strided<*const f64>, left.values, left.across, left.along),
        (_mm512_setzero_pd, |p| _mm512_loadu_pd(p), |x| _mm512_set1_pd(x), |x, y, sum| _mm512_fmadd_pd(x, y, sum), _mm512_storeu_pd));
    tile!(avx512_bf16, "avx512f,avx512bf16", (u32, f32, WIDTH_32), (8 x 48 by 16), (left: *const u32, left, 1, WIDTH_32),
        (_mm512_setzero_ps,
        |p: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(p.cast())),
        |x: u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x.cast_signed())),
        |x, y, sum| _mm512_dpbf16_ps(sum, x, y), _mm512_storeu_ps));
    tile!(avx2_f32, "avx2,fma", (f32, f32, WIDTH_32), (4 x 24 by 8), (left: *const f32, left, 1, WIDTH_32),
        (_mm256_setzero_ps, |p| _mm256_loadu_ps(p), |x| _mm256_set1_ps(x), |x, y, sum| _mm256_fmadd_ps(x, y, sum), _mm256_storeu_ps));
    tile!(avx2_f64, "avx2,fma", (f64, f64, WIDTH_64), (4 x 12 by 4), (left: *const f64, left, 1, WIDTH_64),
        (_mm256_setzero_pd, |p| _mm256_loadu_pd(p), |x| _mm256_set1_pd(x), |x, y, sum| _mm256_fmadd_pd(x, y, sum), _mm256_storeu_pd));
    tile!(avx2_f64_strided, "avx2,fma", (f64, f64, WIDTH_64), (4 x 12 by 4),
        (left: Strided<*const f64>, left.values, left.across, left.along),
        (_mm256_setzero_pd, |p| _mm256_loadu_pd(p), |x| _mm256_set1_pd(x), |x, y, sum| _mm256_fmadd_pd(x, y, sum), _mm256_storeu_pd));
}
#[cfg(target_arch = "x86_64")]
use x86::*;

/// Columns of the portable tile that are summed at a time: 8 x 12 f32 sums fill 24 of the 32 registers of 128 bits that
/// 64-bit Arm has.
const PORTABLE_COLUMNS: usize = 12;

/// Plain loops over arrays, which the compiler vectorises for the target's baseline processor.
///
/// # Safety
/// As the other tiles'.
unsafe fn portable<T, const W: usize>(left: *const T, right: *const T, lanes: usize, to: &mut TilePlace<'_>)
where
    T: Copy + Default + Into<f64> + std::ops::Mul<Output = T> + std::ops::AddAssign,
{
    let mut tile = [[T::default(); W]; TILE_ROWS];
    for column in (0..W).step_by(PORTABLE_COLUMNS) {
        let mut sums = [[T::default(); PORTABLE_COLUMNS]; TILE_ROWS];
        for lane in 0..lanes {
            // SAFETY: by the contract lane `lane` has 8 values at `left` and W at `right`, and W is a multiple of 12.
            let (left, right) = unsafe {
                let left = left.add(lane * W).cast::<[T; TILE_ROWS]>().read();
                let right = right.add(lane * W + column).cast::<[T; PORTABLE_COLUMNS]>().read();
                (left, right)
            };
            for (sums, x) in sums.iter_mut().zip(left) {
                for (sum, y) in sums.iter_mut().zip(right) {
                    *sum += x * y;
                }
            }
        }
        for (out, sums) in tile.iter_mut().zip(&sums) {
            out[column..column + PORTABLE_COLUMNS].copy_from_slice(sums);
        }
    }
    add_tile(&tile, to);
}

/// # Safety
/// As the other strided tiles'.
unsafe fn portable_strided(left: Strided<*const f64>, right: *const f64, lanes: usize, to: &mut TilePlace<'_>) {
    let mut tile = [[0.0; WIDTH_64]; TILE_ROWS];
    for lane in 0..lanes {
        // SAFETY: by the contract lane `lane` has W values at `right`.
        let right = unsafe { right.add(lane * WIDTH_64).cast::<[f64; WIDTH_64]>().read() };
        for (r, sums) in tile.iter_mut().enumerate().take(to.height) {
            // SAFETY: a column below `to.height`.
            let x = unsafe { *left.values.add(r * left.across + lane * left.along) };
            for (sum, y) in sums.iter_mut().zip(right) {
                *sum += x * y;
            }
        }
    }
    add_tile(&tile, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: usize = 5;

    /// Small whole numbers: every sum is exact, so every tile must give the same result.
    fn check<T: Copy>(tile: Tile<T>, value: impl Fn(usize, usize) -> (T, Vec<f64>)) {
        let width = tile.width;
        let panel: Vec<T> = (0..LANES * width).map(|at| value(at / width, at % width).0).collect();
        let exact = |k: usize, c: usize| value(k, c).1;
        let offset = TILE_ROWS;
        let mut out = vec![1.0; 3 * TILE_ROWS * width];
        let place = TilePlace {
            out: &mut out,
            base: 0,
            shape: ProductShape::Full(width),
            row: 0,
            column: 0,
            height: TILE_ROWS,
        };
        let mut place = place;
        tile.add(&panel, offset, &panel, &mut place);
        for r in 0..TILE_ROWS {
            for c in 0..width {
                let products = (0..LANES).flat_map(|k| exact(k, offset + r).into_iter().zip(exact(k, c)));
                let expected: f64 = 1.0 + products.map(|(x, y)| x * y).sum::<f64>();
                assert_eq!(out[r * width + c], expected, "entry ({r}, {c})");
            }
        }
        assert!(out[TILE_ROWS * width..].iter().all(|x| *x == 1.0), "only the tile is written");
    }

    fn number(k: usize, c: usize) -> i16 {
        i16::try_from((7 * k + 3 * c) % 23).unwrap() - 11
    }

    fn check_all(tiles: &Tiles) {
        check(tiles.f32, |k, c| (f32::from(number(k, c)), vec![f64::from(number(k, c))]));
        check(tiles.f64, |k, c| (f64::from(number(k, c)), vec![f64::from(number(k, c))]));
        if let Some(tile) = tiles.bf16 {
            check(tile, |k, c| {
                let rows = [number(2 * k, c), number(2 * k + 1, c)];
                let [low, high] = rows.map(|x| half::bf16::from_f32(f32::from(x)).to_bits());
                (u32::from(low) | u32::from(high) << 16, rows.map(f64::from).to_vec())
            });
        }
    }

    #[test]
    fn every_tile_multiplies() {
        check_all(&Tiles::detect());
        check_all(&Tiles::portable());
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check_all(&Tiles::avx2());
        }
    }

    #[test]
    fn a_triangle_gets_no_entry_above_its_diagonal() {
        let tile = Tiles::detect().f64;
        let panel = vec![1.0; LANES * tile.width];
        let mut out = vec![0.0; ProductShape::Lower.start(TILE_ROWS + 3)];
        let base = ProductShape::Lower.start(3);
        let place =
            TilePlace { out: &mut out[base..], base, shape: ProductShape::Lower, row: 3, column: 0, height: TILE_ROWS };
        let mut place = place;
        tile.add(&panel, 0, &panel, &mut place);
        assert!(out[..base].iter().all(|x| *x == 0.0) && out[base..].iter().all(|x| *x == LANES as f64));
    }
}
