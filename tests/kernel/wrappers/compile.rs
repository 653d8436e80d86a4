//! Programs that must not compile.

/// The expected messages are those of the stable compiler; with another one, run with `TRYBUILD=overwrite`.
#[test]
fn misuse_does_not_compile() {
    let tests = trybuild::TestCases::new();
    tests.compile_fail("tests/kernel/wrappers/ui/*.rs");
}
