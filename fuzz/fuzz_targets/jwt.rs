#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::within_bounds(fuzz::targets::jwt, data));
