//! Guides and reference pages. This module exists in the documentation only.

// The pages are in docs/, where their links lead to files. Here, definitions that lead to modules precede each page:
// the first definition of a link wins. `tests/tidy` checks these definitions, and writes them with UPDATE_GUIDE=1.
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
    // The examples need the feature.
    #[cfg(any(not(doctest), feature = "handover"))]
    handover,
    "../docs/handover.md"
);
page!(
    #[cfg(any(not(doctest), feature = "group"))]
    multi_core,
    "../docs/multi-core.md"
);
page!(event_loops, "../docs/event-loops.md");
page!(migrating, "../docs/migrating.md");
page!(
    #[cfg(any(not(doctest), feature = "sim"))]
    testing,
    "../docs/testing.md"
);
page!(acceptq, "../docs/acceptq.md");
page!(acceptq_zoo, "../docs/acceptq/acceptq-zoo.md");
page!(promises, "../docs/promises.md");
page!(architecture, "../docs/architecture.md");
page!(kernel, "../docs/kernel.md");
page!(kernel_versions, "../docs/kernels/kernel-versions.md");
page!(known_bugs, "../docs/known-bugs.md");
page!(known_bugs_tables, "../docs/known-bugs/known-bugs-tables.md");
page!(benchmarks, "../docs/benchmarks.md");
page!(benchmark_tables, "../docs/benchmarks/benchmark-tables.md");
page!(reliability, "../docs/reliability.md");
page!(integrations, "../docs/integrations.md");
page!(releasing, "../docs/releasing.md");
page!(contributing, "../CONTRIBUTING.md");
page!(security, "../SECURITY.md");
page!(
    // Its headings look like links.
    #[allow(rustdoc::broken_intra_doc_links)]
    changelog,
    "../CHANGELOG.md"
);
