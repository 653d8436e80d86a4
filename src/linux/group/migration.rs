//! Whether the kernel migrates the queue of a closed member to the other members.

use std::fs;

pub(super) fn queues_migrate() -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    migrates(&read("/proc/sys/net/ipv4/tcp_migrate_req"), &read("/proc/sys/kernel/osrelease"))
}

/// Decides by the sysctl and the kernel's release: 5.10.188 already has the sysctl, but only 5.14 and later migrate.
fn migrates(sysctl: &str, release: &str) -> bool {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(|number| number.parse().ok());
    let version: (Option<u32>, Option<u32>) = (numbers.next().flatten(), numbers.next().flatten());
    sysctl.trim() == "1" && version >= (Some(5), Some(14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrates_since_linux_5_14_if_the_sysctl_is_set() {
        for (release, expected) in [
            ("5.10.188", false),
            ("5.10.0-30-amd64\n", false),
            ("5.13.19", false),
            ("5.14.0-427.el9.x86_64", true),
            ("5.14", true),
            ("6.1.192\n", true),
            ("6.18.44-custom", true),
            ("10.0-rc1", true),
            ("4.19.0", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(migrates("1\n", release), expected, "{release}");
            assert!(!migrates("0\n", release) && !migrates("", release), "{release}");
        }
    }
}
