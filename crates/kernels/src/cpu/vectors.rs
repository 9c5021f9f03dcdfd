//! Plain loops compiled for the widest vectors of the processor, chosen at run time.
//!
//! Guarantees: every variant is the same safe function, compiled up to three times. Must not: contain a loop itself.

/// `wide!(fn name(argument: Type, ...) -> Type = body)`: a function that runs `body::<FUSED>`, compiled for AVX-512,
/// AVX2 or the target's baseline processor. `body` and everything that it calls in its loops must be
/// `#[inline(always)]`; FUSED says whether a fused multiply-add is one instruction there (otherwise it is a library
/// call).
macro_rules! wide {
    ($(#[$meta:meta])* $visible:vis fn $name:ident $(<$life:lifetime>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $visible fn $name $(<$life>)? ($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512 $(<$life>)? ($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$life>)? ($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }
                let fused = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if fused
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor was just checked for these instructions; the body is safe code.
                    return unsafe { avx512($($argument),*) };
                }
                if fused {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($argument),*)
        }
    };
}
pub(super) use wide;

/// a b + c.
#[inline(always)]
pub(super) fn multiply_add<const FUSED: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Sums in parallel: two vectors of 512 bits, so that the adders' latency is hidden.
const SUMS: usize = 16;

/// <a, b>, in a fixed order.
#[inline(always)]
pub(super) fn dot<const FUSED: bool>(a: &[f64], b: &[f64]) -> f64 {
    let length = a.len().min(b.len());
    let (a, b) = (a[..length].as_chunks::<SUMS>(), b[..length].as_chunks::<SUMS>());
    let mut sums = [0.0; SUMS];
    for (a, b) in a.0.iter().zip(b.0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = multiply_add::<FUSED>(*a, *b, *sum);
        }
    }
    let mut width = SUMS / 2;
    while width > 0 {
        for k in 0..width {
            sums[k] += sums[k + width];
        }
        width /= 2;
    }
    a.1.iter().zip(b.1).fold(sums[0], |sum, (a, b)| multiply_add::<FUSED>(*a, *b, sum))
}

/// y += a x
#[inline(always)]
pub(super) fn add_scaled<const FUSED: bool>(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = multiply_add::<FUSED>(a, *x, *y);
    }
}
