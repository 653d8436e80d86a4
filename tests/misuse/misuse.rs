//! Programs that must not compile: misuse of the API, and known bugs that a type forbids.

/// The expected messages are those of the stable compiler; with another one, run with `TRYBUILD=overwrite`.
#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
