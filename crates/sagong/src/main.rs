//! Sagong.
fn main() {}
