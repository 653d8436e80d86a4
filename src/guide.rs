//! The guides: how to do something, and what it rests on.
//!
//! Only on this page: the compiled crate has no such module.

// They stand in docs/. Before each come the definitions of its links, which go to files there and to modules here: of
// two definitions the first one counts. `tests/tidy` keeps them, and writes them anew with UPDATE_GUIDE=1.
macro_rules! page {
    ($(#[$attribute:meta])* $name:ident, $file:literal) => {
        $(#[$attribute])*
        #[doc = include_str!("guide/links.md")]
        #[doc = include_str!("guide/pictures.md")]
        #[doc = include_str!($file)]
        pub mod $name {}
    };
}

page!(overload, "../docs/overload.md");
page!(
    // The examples ask for the feature.
    #[cfg(any(not(doctest), feature = "handover"))]
    handover,
    "../docs/handover.md"
);
page!(
    #[cfg(any(not(doctest), feature = "group"))]
    cores,
    "../docs/cores.md"
);
page!(
    #[cfg(any(not(doctest), feature = "tokio"))]
    hosting,
    "../docs/hosting.md"
);
page!(
    #[cfg(any(not(doctest), feature = "tokio"))]
    migrating,
    "../docs/migrating.md"
);
page!(
    #[cfg(any(not(doctest), feature = "sim"))]
    testing,
    "../docs/testing.md"
);
page!(acceptq, "../docs/acceptq.md");
page!(promises, "../docs/promises.md");
page!(architecture, "../docs/architecture.md");
page!(kernel, "../docs/kernel.md");
page!(bestiary, "../docs/bestiary.md");
page!(benchmarks, "../docs/benchmarks.md");
page!(reliability, "../docs/reliability.md");
page!(mutants, "../docs/mutants.md");
page!(integrations, "../docs/integrations.md");
page!(releasing, "../docs/releasing.md");
page!(
    // Its headings look like links.
    #[allow(rustdoc::broken_intra_doc_links)]
    changelog,
    "../CHANGELOG.md"
);
