//! A check that the processor has the instructions that the build uses.
//!
//! The x86-64 build uses x86-64-v3 (`.cargo/config.toml`). On an older processor the first such
//! instruction would end the process with SIGILL; the check ends it with a sentence instead.

/// Checks the processor.
///
/// # Errors
///
/// If the processor lacks an instruction set; the sentence says how to build for it.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub fn check() -> Result<(), &'static str> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    // `is_x86_feature_detected!` is constant true for features that the build assumes, so CPUID is
    // read directly. The bits are from Intel's manual, volume 2A, CPUID.
    const LEAF_1_ECX: u32 = 1 << 12 | 1 << 22 | 1 << 27 | 1 << 28 | 1 << 29; // FMA MOVBE OSXSAVE AVX F16C
    const LEAF_7_EBX: u32 = 1 << 3 | 1 << 5 | 1 << 8; // BMI1 AVX2 BMI2
    const EXTENDED_1_ECX: u32 = 1 << 5; // LZCNT

    let has_all = |bits: u32, wanted: u32| bits & wanted == wanted;
    let basic =
        __cpuid(0).eax >= 7 && has_all(__cpuid(1).ecx, LEAF_1_ECX) && has_all(__cpuid_count(7, 0).ebx, LEAF_7_EBX);
    if basic && has_all(__cpuid(0x8000_0001).ecx, EXTENDED_1_ECX) {
        Ok(())
    } else {
        Err("this processor lacks x86-64-v3 (AVX2, BMI2, FMA); \
             build for it with RUSTFLAGS=\"-C target-cpu=native\" cargo build --release")
    }
}

/// Checks nothing: other architectures are built for their baseline.
///
/// # Errors
///
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub fn check() -> Result<(), &'static str> {
    Ok(())
}
