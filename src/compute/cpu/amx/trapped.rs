//! The seven instructions that the tile of AMX uses, done by hand on a processor that does not know them and traps: what
//! they are encoded as and what they do are so both tested everywhere.
//!
//! Guarantees: as the manual says (Intel SDM, volume 2), for tiles of palette 1. Any other unknown instruction aborts.
//! Must not: be anywhere but in tests.

use std::mem::{MaybeUninit, zeroed};

const TILES: usize = 8;
const ROWS: usize = 16;
const BYTES: usize = 64;

/// The unit: what was configured, and what the tiles hold.
struct Unit {
    bytes_a_row: [usize; TILES],
    rows: [usize; TILES],
    tiles: [[[u8; BYTES]; ROWS]; TILES],
}

static mut UNIT: Unit = Unit { bytes_a_row: [0; TILES], rows: [0; TILES], tiles: [[[0; BYTES]; ROWS]; TILES] };

/// From now on this process's unknown instructions come here.
pub(super) fn emulate() {
    // SAFETY: a handler of the right type, for a signal that only this test's instructions raise.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        action.sa_sigaction = unknown as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, MaybeUninit::uninit().as_mut_ptr()), 0);
    }
}

extern "C" fn unknown(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands the context of the thread that trapped, which waits; nobody else uses the unit.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        let unit = &raw mut UNIT;
        match perform(at, registers, &mut *unit) {
            Some(length) => registers[libc::REG_RIP as usize] += length as i64,
            None => libc::abort(),
        }
    }
}

/// Where the registers that instructions number 0 to 15 are in the context.
const ORDER: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Its length, if it is one of the seven.
unsafe fn perform(at: *const u8, registers: &[i64], unit: &mut Unit) -> Option<usize> {
    // SAFETY: an instruction that the processor has read.
    let byte = |i: usize| unsafe { *at.add(i) };
    // VEX in three bytes: C4, RXB and the map (inverted; 2 is 0F 38), W vvvv L pp.
    if byte(0) != 0xc4 || byte(1) & 0x1f != 2 || byte(2) & 0x84 != 0 {
        return None;
    }
    let (index_high, base_high) = (usize::from(!byte(1) >> 6 & 1) * 8, usize::from(!byte(1) >> 5 & 1) * 8);
    let (third, prefix, opcode, modrm) = (usize::from(!byte(2) >> 3 & 7), byte(2) & 3, byte(3), byte(4));
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let register = |number: usize| registers[ORDER[number] as usize] as usize;
    // The address: base, index and scale where there is a SIB byte, and a displacement.
    let (mut base, mut stride, mut length) = (rm + base_high, 0, 5);
    if mode != 3 && rm == 4 {
        let sib = byte(5);
        base = usize::from(sib & 7) + base_high;
        let index = usize::from(sib >> 3 & 7) + index_high;
        stride = if index == 4 { 0 } else { register(index) << (sib >> 6) };
        length = 6;
    }
    let displacement = match mode {
        1 => isize::from(byte(length).cast_signed()),
        2 => i32::from_le_bytes(std::array::from_fn(|i| byte(length + i))) as isize,
        _ => 0,
    };
    length += [0, 1, 4, 0][usize::from(mode)];
    let address = |row: usize| (register(base) + row * stride).wrapping_add_signed(displacement);
    match (opcode, prefix, mode) {
        (0x49, 0, 3) if modrm == 0xc0 => unit.rows = [0; TILES], // TILERELEASE
        (0x49, 0, _) => {
            // LDTILECFG
            let shapes = address(0) as *const u8;
            // SAFETY: 64 bytes, by the instruction.
            let shapes = unsafe { std::slice::from_raw_parts(shapes, 64) };
            if shapes[0] != 1 || shapes[1..16].iter().any(|x| *x != 0) {
                return None;
            }
            for t in 0..TILES {
                unit.bytes_a_row[t] = usize::from(u16::from_le_bytes([shapes[16 + 2 * t], shapes[17 + 2 * t]]));
                unit.rows[t] = usize::from(shapes[48 + t]);
            }
            unit.tiles = [[[0; BYTES]; ROWS]; TILES];
        }
        (0x49, 3, 3) => unit.tiles[reg] = [[0; BYTES]; ROWS], // TILEZERO
        (0x4b, 3 | 2, 0..=2) => {
            // TILELOADD, TILESTORED
            let bytes = unit.bytes_a_row[reg];
            for row in 0..unit.rows[reg] {
                let (here, there) = (unit.tiles[reg][row].as_mut_ptr(), address(row) as *mut u8);
                // SAFETY: memory that the instruction would touch.
                unsafe {
                    if prefix == 3 {
                        here.copy_from(there, bytes);
                    } else {
                        there.copy_from(here, bytes);
                    }
                }
            }
        }
        (0x5c, 2, 3) => unit.multiply(reg, rm, third), // TDPBF16PS
        _ => return None,
    }
    Some(length)
}

impl Unit {
    /// sums += left right: even and odd rows are summed apart.
    fn multiply(&mut self, sums: usize, left: usize, right: usize) {
        assert!(self.rows[sums] == self.rows[left] && self.bytes_a_row[left] == 4 * self.rows[right]);
        let value = |tile: &[[u8; BYTES]; ROWS], row: usize, at: usize| {
            f32::from_bits(u32::from(u16::from_le_bytes([tile[row][2 * at], tile[row][2 * at + 1]])) << 16)
        };
        for m in 0..self.rows[sums] {
            for n in 0..self.bytes_a_row[sums] / 4 {
                let mut halves = [0.0f32; 2];
                for k in 0..self.rows[right] {
                    for (half, sum) in halves.iter_mut().enumerate() {
                        let x = value(&self.tiles[left], m, 2 * k + half);
                        *sum = x.mul_add(value(&self.tiles[right], k, 2 * n + half), *sum);
                    }
                }
                let place = &mut self.tiles[sums][m][4 * n..4 * n + 4];
                let sum = f32::from_le_bytes([place[0], place[1], place[2], place[3]]) + (halves[0] + halves[1]);
                place.copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}
