//! Runs a child under callgrind, and reads its instruction count.

use std::process::Command;

/// The environment variable with the child's case.
pub(crate) const CASE: &str = "EPOLL_ACCEPTOR_INSTRUCTIONS";

/// Returns the version of valgrind.
pub(crate) fn version() -> Result<String, String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => Err(format!("valgrind --version: {}", output.status)),
        Err(error) => Err(format!("valgrind is needed to count instructions: {error}")),
    }
}

/// Runs a case in a child, and returns its instructions inside of `function`.
pub(crate) fn instructions(case: &str, function: &str) -> u64 {
    let out =
        std::env::temp_dir().join(format!("callgrind.{}.{}", std::process::id(), case.replace('/', ".")));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={function}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program's own path"))
        .env(CASE, case)
        .output()
        .expect("a child under valgrind");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {}\n{stderr}", output.status);
    let profile = std::fs::read_to_string(&out).expect("callgrind's profile");
    if std::env::var_os("KEEP_PROFILES").is_none() {
        let _ = std::fs::remove_file(&out);
    }
    let total =
        profile.lines().find_map(|line| line.strip_prefix("summary:").or(line.strip_prefix("totals:")));
    let total: u64 = total.and_then(|total| total.trim().parse().ok()).expect("a total");
    assert!(total > 0, "{case}: nothing was counted\n{stderr}");
    total
}
