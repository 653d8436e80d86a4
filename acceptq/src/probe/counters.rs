//! Per-namespace counters of accept queues: `/proc/net/netstat` and `/proc/net/snmp`.

use std::fs;

use serde::Serialize;

/// Totals of all TCP listeners since the network namespace was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counters {
    /// Connections dropped because the accept queue was full.
    pub(crate) listen_overflows: Option<u64>,
    /// Connections dropped for any reason, overflows included.
    pub(crate) listen_drops: Option<u64>,
    /// Connections that clients opened to listeners of this namespace.
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

/// Reads one field. Two lines start with the name of the group: the names of its fields, then their values.
pub(crate) fn field(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_name() {
        let text = "TcpExt: A ListenOverflows C\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 4\n";
        assert_eq!(field(text, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(field(text, "IpExt:", "A"), Some(4));
        assert_eq!(field(text, "TcpExt:", "B"), None);
        assert_eq!(field("", "TcpExt:", "A"), None);
    }
}
