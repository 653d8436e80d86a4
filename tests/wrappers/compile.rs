//! What must not compile.

/// The messages are those of the stable compiler; with another one, set `TRYBUILD=overwrite` and look.
#[test]
fn misuse_does_not_compile() {
    let tests = trybuild::TestCases::new();
    tests.compile_fail("tests/wrappers/ui/*.rs");
}
