//! What an attested slot pays (M6, B3): base * (1 + ln n) in exact fixed point, no float anywhere.

/// floor(ln 2 * 2^64).
const LN2_Q64: u128 = 0xB172_17F7_D1CF_79AB;
/// Binary digits of the fraction of log2.
const FRACTION_BITS: u32 = 40;

/// floor(ln(n) * 2^32) for n >= 1, within one unit; 0 for n = 0, which no caller asks.
pub fn ln_q32(n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let k = n.ilog2();
    // n / 2^k in [1, 2), scaled by 2^63; squaring doubles the logarithm, each carry is its next binary digit.
    let mut mantissa = u128::from(n) << (63 - k);
    let mut fraction: u128 = 0;
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    ((((u128::from(k) << FRACTION_BITS) | fraction) * LN2_Q64) >> 72) as u64
}

/// base * (1 + ln n) in units of 10^-8 TIME, rounded down; nothing for n = 0. `base` is at most 2^40 (B1).
pub fn subsidy(base: u64, n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let factor = (1u128 << 32) + u128::from(ln_q32(n));
    u64::try_from((u128::from(base) * factor) >> 32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_b3() {
        let vectors: [(u64, u64, u64); 15] = [
            (1, 0, 10_000_000_000),
            (2, 2_977_044_471, 16_931_471_803),
            (3, 4_718_503_850, 20_986_122_884),
            (4, 5_954_088_943, 23_862_943_609),
            (7, 8_357_620_451, 29_459_101_490),
            (10, 9_889_527_670, 33_025_850_928),
            (100, 19_779_055_341, 56_051_701_859),
            (256, 23_816_355_774, 65_451_774_443),
            (512, 26_793_400_246, 72_383_246_249),
            (1_000, 29_668_583_011, 79_077_552_787),
            (65_535, 47_632_646_012, 120_903_396_299),
            (65_536, 47_632_711_549, 120_903_548_889),
            (1_000_000, 59_337_166_023, 148_155_105_577),
            ((1 << 32) - 1, 95_265_423_097, 231_807_097_776),
            (u64::MAX, 190_530_846_196, 453_614_195_557),
        ];
        for (n, ln, paid) in vectors {
            assert_eq!(ln_q32(n), ln, "B3: ln of {n}");
            assert_eq!(subsidy(10_000_000_000, n), paid, "B3: subsidy of {n}");
        }
        assert_eq!(subsidy(10_000_000_000, 0), 0, "B3: nobody active");
    }

    #[test]
    fn ln_never_falls() {
        let mut last = 0;
        for n in 1..200_000 {
            let ln = ln_q32(n);
            assert!(ln >= last, "B3: monotone at {n}");
            last = ln;
        }
    }
}
