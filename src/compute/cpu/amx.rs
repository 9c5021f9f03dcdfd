//! The tile of bf16 pairs on Intel's matrix unit (AMX): TDPBF16PS multiplies 8 x 32 by 32 x 16 values at a time.
//!
//! Guarantees: `tile` is there only where the processor has the unit, Linux gives leave to use it, and a product of whole
//! numbers comes out exact; sums of products in f32, as the other tile of bf16 has them. Must not: leave the unit in use
//! after a tile, which would make every change of threads save it.
//!
//! Instructions by name, because Rust has no stable intrinsics for them. The tests run them everywhere: a processor without
//! the unit traps, and `trapped` does what the manual says (Intel SDM, volume 2). How fast it is has not been measured.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::tiles::{Place, Shape, TILE_ROWS, Tile, WIDTH_32, add_tile};

#[cfg(test)]
mod trapped;

/// Lanes of pairs that one instruction multiplies.
const STEP: usize = 16;
/// Lanes of the left operand that are turned at a time: a block of 512 rows, 8 KiB.
const TURNED: usize = 256;

/// What LDTILECFG reads: tiles 0 to 2 are sums (8 x 16 f32), 3 the left operand (8 x 16 pairs), 4 to 6 the right one (16 x 16).
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes_a_row: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = Shapes {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    bytes_a_row: [64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [8, 8, 8, 8, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The left operand, column after column.
#[repr(align(64))]
struct Turned([[u32; TURNED]; TILE_ROWS]);

/// The tile, where there is a unit that multiplies right.
pub(super) fn tile() -> Option<Tile<u32>> {
    let there = is_x86_feature_detected!("avx2") && has_unit() && may_use_it();
    // SAFETY: the processor has the unit, and Linux has just given leave.
    let tile = there.then(|| unsafe { Tile::new(amx_bf16, WIDTH_32) })?;
    multiplies_right(tile).then_some(tile)
}

/// CPUID, leaf 7: AMX-BF16 and AMX-TILE.
fn has_unit() -> bool {
    let features = __cpuid_count(7, 0).edx;
    __cpuid_count(0, 0).eax >= 7 && features & (1 << 22) != 0 && features & (1 << 24) != 0
}

/// Linux saves the unit's 8 KiB only for processes that ask: ARCH_REQ_XCOMP_PERM for state component 18.
fn may_use_it() -> bool {
    const ARCH_PRCTL: i64 = 158;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that reads and writes no memory of ours.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") 0x1023, in("rsi") 18,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

/// Whether a product of small whole numbers, whose sums are exact, comes out as in plain arithmetic.
fn multiplies_right(tile: Tile<u32>) -> bool {
    let lanes = 2 * STEP + 1;
    let number = |row: usize, c: usize| ((7 * row + 3 * c) % 23) as f32 - 11.0;
    let pair = |k: usize, c: usize| (number(2 * k, c).to_bits() >> 16) | (number(2 * k + 1, c).to_bits() & 0xffff_0000);
    let panel: Vec<u32> = (0..lanes * WIDTH_32).map(|at| pair(at / WIDTH_32, at % WIDTH_32)).collect();
    let mut out = vec![0.0; TILE_ROWS * WIDTH_32];
    let shape = Shape::Full(WIDTH_32);
    let mut place = Place { out: &mut out, base: 0, shape, row: 0, column: 0, height: TILE_ROWS };
    tile.add((&panel, TILE_ROWS), &panel, &mut place);
    (0..out.len()).all(|at| {
        let (r, c) = (at / WIDTH_32, at % WIDTH_32);
        let exact: f32 = (0..2 * lanes).map(|row| number(row, TILE_ROWS + r) * number(row, c)).sum();
        out[at] == f64::from(exact)
    })
}

/// # Safety
/// The processor has the unit and AVX2, and the process may use it; `right` is followed by `lanes` times W values, `left` by
/// 8 in each lane.
#[target_feature(enable = "avx2,fma")]
unsafe fn amx_bf16(left: *const u32, right: *const u32, lanes: usize, to: &mut Place<'_>) {
    let whole = lanes / STEP * STEP;
    for first in (0..whole).step_by(TURNED) {
        let count = TURNED.min(whole - first);
        // SAFETY: by this function's contract; whole steps only.
        unsafe { add_steps(left.add(first * WIDTH_32), right.add(first * WIDTH_32), count, to) };
    }
    if whole < lanes {
        // The last step, filled up with lanes of zeros.
        let mut rest = [[[0u32; WIDTH_32]; STEP]; 2];
        for lane in whole..lanes {
            // SAFETY: by this function's contract.
            unsafe {
                rest[0][lane - whole][..TILE_ROWS]
                    .copy_from_slice(&*left.add(lane * WIDTH_32).cast::<[u32; TILE_ROWS]>());
                rest[1][lane - whole] = right.add(lane * WIDTH_32).cast::<[u32; WIDTH_32]>().read();
            }
        }
        // SAFETY: one step of lanes, W values each.
        unsafe { add_steps(rest[0].as_ptr().cast(), rest[1].as_ptr().cast(), STEP, to) };
    }
}

/// # Safety
/// As above; `lanes` is a multiple of 16, above 0 and at most 256.
#[target_feature(enable = "avx2,fma")]
unsafe fn add_steps(left: *const u32, right: *const u32, lanes: usize, to: &mut Place<'_>) {
    debug_assert!((STEP..=TURNED).contains(&lanes) && lanes.is_multiple_of(STEP));
    let mut turned = Turned([[0; TURNED]; TILE_ROWS]);
    for lane in (0..lanes).step_by(8) {
        // SAFETY: eight lanes of eight values, to eight places of eight columns.
        unsafe { turn(left.add(lane * WIDTH_32), turned.0.as_mut_ptr().cast::<u32>().add(lane)) };
    }
    let mut sums = [[0.0f32; WIDTH_32]; TILE_ROWS];
    const ROW: usize = WIDTH_32 * size_of::<u32>();
    // SAFETY: step s reads 16 pairs of each of the 8 turned columns, and lanes 16 s to 16 s + 15 of `right`, three times 64
    // bytes each; the sums are 8 rows of three times 64 bytes. The unit is given back.
    unsafe {
        asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "2:",
            "tileloadd tmm3, [{left} + {across}]",
            "tileloadd tmm4, [{right} + {row}]",
            "tileloadd tmm5, [{right} + {row} + 64]",
            "tileloadd tmm6, [{right} + {row} + 128]",
            "tdpbf16ps tmm0, tmm3, tmm4",
            "tdpbf16ps tmm1, tmm3, tmm5",
            "tdpbf16ps tmm2, tmm3, tmm6",
            "add {left}, 64",
            "add {right}, {step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + 128], tmm2",
            "tilerelease",
            shapes = in(reg) &raw const SHAPES,
            left = inout(reg) turned.0.as_ptr() => _,
            right = inout(reg) right => _,
            sums = in(reg) sums.as_mut_ptr(),
            steps = inout(reg) lanes / STEP => _,
            across = in(reg) TURNED * size_of::<u32>(),
            row = in(reg) ROW,
            step = const STEP * ROW,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
    add_tile(&sums, to);
}

/// Eight values of each of eight lanes, W apart, to columns, `TURNED` apart.
///
/// # Safety
/// All of them can be read and written.
#[target_feature(enable = "avx2")]
unsafe fn turn(from: *const u32, to: *mut u32) {
    // SAFETY: by the contract.
    let x: [__m256i; 8] = std::array::from_fn(|k| unsafe { _mm256_loadu_si256(from.add(k * WIDTH_32).cast()) });
    // Pairs of lanes, then fours, then halves of the vectors.
    let pairs: [[__m256i; 2]; 4] = std::array::from_fn(|k| {
        [_mm256_unpacklo_epi32(x[2 * k], x[2 * k + 1]), _mm256_unpackhi_epi32(x[2 * k], x[2 * k + 1])]
    });
    let fours: [[__m256i; 4]; 2] = std::array::from_fn(|k| {
        let [a, b] = [pairs[2 * k], pairs[2 * k + 1]];
        [
            _mm256_unpacklo_epi64(a[0], b[0]),
            _mm256_unpackhi_epi64(a[0], b[0]),
            _mm256_unpacklo_epi64(a[1], b[1]),
            _mm256_unpackhi_epi64(a[1], b[1]),
        ]
    });
    for (c, (a, b)) in fours[0].into_iter().zip(fours[1]).enumerate() {
        let columns = [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)];
        for (half, column) in columns.into_iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { _mm256_storeu_si256(to.add((4 * half + c) * TURNED).cast(), column) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_multiplies_pairs_of_bf16() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        if !(has_unit() && may_use_it()) {
            trapped::emulate();
        }
        // SAFETY: the unit is there, or its instructions are done by hand.
        let tile = unsafe { Tile::new(amx_bf16, WIDTH_32) };
        assert!(multiplies_right(tile));
        // Lanes of which each tells itself apart, in rests, whole steps and more than one block.
        for lanes in [1, 15, 16, 40, TURNED, TURNED + 17] {
            let panel: Vec<u32> = (0..lanes * WIDTH_32)
                .map(|at| {
                    let value = |row: usize| ((row * 31 + (at % WIDTH_32) * 7) % 13) as f32 - 6.0;
                    let lane = at / WIDTH_32;
                    (value(2 * lane).to_bits() >> 16) | (value(2 * lane + 1).to_bits() & 0xffff_0000)
                })
                .collect();
            let value = |row: usize, c: usize| {
                let pair = panel[row / 2 * WIDTH_32 + c];
                f64::from(f32::from_bits(if row.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 }))
            };
            let mut out = vec![0.5; TILE_ROWS * WIDTH_32];
            let shape = Shape::Full(WIDTH_32);
            let mut place = Place { out: &mut out, base: 0, shape, row: 0, column: 0, height: TILE_ROWS };
            tile.add((&panel, 2 * TILE_ROWS), &panel, &mut place);
            for (at, found) in out.iter().enumerate() {
                let (r, c) = (at / WIDTH_32, at % WIDTH_32);
                let exact: f64 = (0..2 * lanes).map(|row| value(row, 2 * TILE_ROWS + r) * value(row, c)).sum();
                assert_eq!(*found, 0.5 + exact, "entry ({r}, {c}) of {lanes} lanes");
            }
        }
    }
}
