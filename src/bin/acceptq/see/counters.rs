//! The counters of the network namespace that concern accept queues: `/proc/net/netstat` and `snmp`.

use std::fs;

use serde::Serialize;

/// Since the namespace was made, all TCP listeners together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counters {
    /// Connections that found the queue full.
    pub(crate) listen_overflows: Option<u64>,
    /// The same, and those that were dropped for other reasons.
    pub(crate) listen_drops: Option<u64>,
    /// Connections that were made with a listener of this namespace.
    pub(crate) passive_opens: Option<u64>,
}

impl Counters {
    pub(crate) fn now() -> Self {
        let netstat = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
        let snmp = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
        Self {
            listen_overflows: field(&netstat, "TcpExt:", "ListenOverflows"),
            listen_drops: field(&netstat, "TcpExt:", "ListenDrops"),
            passive_opens: field(&snmp, "Tcp:", "PassiveOpens"),
        }
    }
}

/// Two lines begin with the group's name: the names of the fields, and their values.
fn field(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stands_under_its_name() {
        let text = "TcpExt: A ListenOverflows C\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 4\n";
        assert_eq!(field(text, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(field(text, "IpExt:", "A"), Some(4));
        assert_eq!(field(text, "TcpExt:", "B"), None);
        assert_eq!(field("", "TcpExt:", "A"), None);
    }
}
