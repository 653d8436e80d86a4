//! The container or systemd unit of a process, from the names of its control groups: `/proc/PID/cgroup`.

use std::fs;

/// The length of a container id, and of its short form as docker(1) and podman(1) print it.
const ID: usize = 64;
const SHORT_ID: usize = 12;

/// Returns the short id of the container that a process runs in, or else its systemd unit.
pub(crate) fn unit_of(pid: i32) -> Option<String> {
    parse(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// Parses `/proc/PID/cgroup`: a line for each hierarchy, such as `0::/system.slice/nginx.service`.
fn parse(text: &str) -> Option<String> {
    let paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let container = paths.iter().find_map(|path| path.rsplit('/').find_map(container));
    container.or_else(|| paths.iter().find_map(|path| path.rsplit('/').find_map(service)))
}

/// Returns the short id if a control group is a container's: `docker-ID.scope`, `libpod-ID.scope`,
/// `cri-containerd-ID.scope`, `crio-ID.scope`, `...:cri-containerd:ID`, or `ID` alone.
fn container(name: &str) -> Option<String> {
    // A conmon process watches a container, and is not in it.
    if name.contains("conmon") {
        return None;
    }
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit(['-', ':']).next().unwrap_or(name);
    let is_id = id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id[..SHORT_ID].into())
}

/// Returns the name of a service's control group. systemd escapes characters in it as `\x2d`.
fn service(name: &str) -> Option<String> {
    name.ends_with(".service").then(|| name.escape_debug().to_string().replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "1f2e3d4c5b6a79880123456789abcdef1f2e3d4c5b6a79880123456789abcdef";

    #[test]
    fn container_id_is_found_for_each_runtime() {
        for path in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "/machine.slice/libpod-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a2b.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1a2b.slice/crio-ID.scope",
            "/kubepods/besteffort/pod1a2b3c4d-0000-1111-2222-333344445555/ID",
            "/system.slice/containerd.service/kubepods-burstable-pod1a2b.slice:cri-containerd:ID",
            "/default/ID",
            "/ecs/a-task/ID",
        ] {
            let path = path.replace("ID", CONTAINER);
            for text in [format!("0::{path}\n"), format!("9:name=systemd:{path}\n4:memory:/\n0::/\n")] {
                assert_eq!(parse(&text).as_deref(), Some("1f2e3d4c5b6a"), "{text}");
            }
        }
    }

    #[test]
    fn unit_is_found_without_container() {
        for (path, unit) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            (
                "/system.slice/system-postgresql.slice/postgresql@15-main.service",
                Some("postgresql@15-main.service"),
            ),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", Some("web.service")),
            ("/system.slice/dbus\\x2dbroker.service", Some("dbus\\x2dbroker.service")),
            ("/machine.slice/libpod-conmon-ID.scope", None),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            ("/", None),
        ] {
            let text = format!("0::{}\n", path.replace("ID", CONTAINER));
            assert_eq!(parse(&text).as_deref(), unit, "{text}");
        }
        assert_eq!(parse(""), None);
        assert_eq!(parse("garbage\n0::"), None);
    }
}
