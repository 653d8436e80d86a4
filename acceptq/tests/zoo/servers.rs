//! The servers, and the verdicts that are right for each state.

use std::process::Command;

use crate::cell::{Cell, Crowd, Stop};
use crate::clients::Address;
use crate::place::{APPS, Place, find, port};

pub(crate) const HTTP: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
pub(crate) const PARTIAL: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n";
pub(crate) const COMPUTE: &[u8] = b"GET /compute HTTP/1.0\r\n\r\n";
pub(crate) const FILE: &[u8] = b"GET /file HTTP/1.0\r\n\r\n";
pub(crate) const LOCK: &[u8] = b"GET /lock HTTP/1.0\r\n\r\n";
pub(crate) const SLEEP: &[u8] = b"GET /sleep HTTP/1.0\r\n\r\n";
pub(crate) const PING: &[u8] = b"PING\r\n";

pub(crate) const SERVES: &[&str] = &["healthy", "accepting"];
pub(crate) const IDLE: &[&str] = &["idle"];
pub(crate) const STOPPED: &[&str] = &["stopped"];
pub(crate) const LIMIT: &[&str] = &["at_limit"];
pub(crate) const REFUSES: &[&str] = &["accepting", "refusing"];
pub(crate) const BUSY: &[&str] = &["busy"];
pub(crate) const OCCUPIED: &[&str] = &["busy", "at_limit"];
pub(crate) const UNREAD: &[&str] = &["not_reading"];
pub(crate) const NOT_ACCEPTING: &[&str] = &["not_accepting"];
pub(crate) const NO_DESCRIPTORS: &[&str] = &["exhausted", "refusing"];

/// The kinds of states, with what the clients do.
pub(crate) fn idle() -> Crowd {
    Crowd::default()
}

pub(crate) fn loaded(payload: &'static [u8]) -> Crowd {
    Crowd { load: Some((3, payload, 5, 0)), ..Crowd::default() }
}

/// Some hold the server at its limit, then others connect.
pub(crate) fn limit(first: (usize, &'static [u8])) -> Crowd {
    Crowd { first, then: (3, first.1), ..Crowd::default() }
}

/// Likewise, and clients keep coming.
pub(crate) fn refused(first: (usize, &'static [u8])) -> Crowd {
    Crowd { first, load: Some((1, first.1, 30, 0)), ..Crowd::default() }
}

pub(crate) fn blocked(first: (usize, &'static [u8])) -> Crowd {
    Crowd { first, then: (3, HTTP), ..Crowd::default() }
}

pub(crate) fn stopped(stop: Stop) -> Crowd {
    Crowd { stop, then: (3, HTTP), ..Crowd::default() }
}

pub(crate) fn stopped_idle(stop: Stop) -> Crowd {
    Crowd { stop, ..Crowd::default() }
}

pub(crate) fn waiting(count: usize) -> Crowd {
    Crowd { then: (count, HTTP), ..Crowd::default() }
}

pub(crate) fn overrun() -> Crowd {
    Crowd { load: Some((2, b"", 15, 300)), ..Crowd::default() }
}

pub(crate) type Make = Option<Box<dyn Fn() -> Command + Send + Sync>>;

/// Returns a command, or `None` if its program is not installed.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Make {
    let program = find(program)?;
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    Some(Box::new(move || {
        let mut command = Command::new(&program);
        command.args(&arguments).current_dir("/");
        command
    }))
}

/// Runs it with this descriptor limit.
pub(crate) fn few_descriptors(make: Make, count: u32) -> Make {
    let make = make?;
    Some(Box::new(move || {
        let inner = make();
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={count}")).arg(inner.get_program()).args(inner.get_args());
        command.current_dir("/");
        command
    }))
}

pub(crate) struct Zoo<'a> {
    pub(crate) place: &'a Place,
    cells: Vec<Cell>,
}

impl Zoo<'_> {
    /// Adds a cell for a server on a new port. `make` returns its command for an address and a name for files.
    pub(crate) fn add(
        &mut self,
        server: &str,
        state: &'static str,
        make: impl Fn(&Place, &str, u16, &str) -> Make,
        crowd: Crowd,
        right: &'static [&'static str],
    ) -> &mut Cell {
        self.add_at("127.0.0.1", server, state, make, crowd, right)
    }

    /// Likewise, on this IP address.
    fn add_at(
        &mut self,
        host: &str,
        server: &str,
        state: &'static str,
        make: impl Fn(&Place, &str, u16, &str) -> Make,
        crowd: Crowd,
        right: &'static [&'static str],
    ) -> &mut Cell {
        let (port, name) = (port(), format!("{}", self.cells.len()));
        let command = make(self.place, host, port, &name);
        // A server on a Unix socket ignores the address.
        let address = match host {
            "unix" => Address(self.place.path(&format!("{port}.sock"))),
            host => Address(format!("{host}:{port}")),
        };
        self.cells.push(Cell {
            server: server.into(),
            state,
            address,
            command,
            crowd,
            right,
            misleading: &[],
        });
        self.cells.last_mut().expect("just added")
    }
}

pub(crate) fn all(place: &Place) -> Vec<Cell> {
    let mut zoo = Zoo { place, cells: Vec::new() };
    zoo.web_servers();
    zoo.databases();
    zoo.python();
    zoo.runtimes();
    zoo.others();
    zoo.cells
}

fn nginx(options: &'static str, descriptors: u32) -> impl Fn(&Place, &str, u16, &str) -> Make {
    move |place, host, port, name| {
        let pid = place.path(&format!("{name}.pid"));
        let listen = match host {
            "unix" => format!("unix:{}", place.path(&format!("{port}.sock"))),
            host => format!("{host}:{port}"),
        };
        let text = format!(
            "daemon off; pid {pid}; error_log /dev/null; worker_rlimit_nofile {descriptors};\n\
             events {{ {options} }}\n\
             http {{ access_log off; server {{ listen {listen} backlog=128; return 200 'ok\\n'; }} }}\n"
        );
        let file = place.file(&format!("{name}.conf"), &format!("worker_processes 2;{text}"));
        command("nginx", &["-c", &file])
    }
}

fn haproxy(place: &Place, host: &str, port: u16, name: &str) -> Make {
    let file = place.file(
        &format!("{name}.cfg"),
        &format!(
            "defaults\n mode http\n timeout client 1m\n timeout connect 1s\n timeout server 1m\n\
             frontend f\n bind {host}:{port}\n maxconn 2\n http-request return status 200\n"
        ),
    );
    command("haproxy", &["-db", "-f", &file])
}

fn apache(mpm: &'static str) -> impl Fn(&Place, &str, u16, &str) -> Make {
    move |place, host, port, name| {
        let (pid, root) = (place.path(&format!("{name}.pid")), place.folder.display());
        let limits = match mpm {
            "event" => {
                "ServerLimit 1\nThreadsPerChild 2\nMaxRequestWorkers 2\nThreadLimit 2\nAsyncRequestWorkerFactor 1"
            }
            _ => "StartServers 2\nMinSpareServers 1\nMaxSpareServers 2\nServerLimit 2\nMaxRequestWorkers 2",
        };
        let text = format!(
            "ServerRoot {root}\nServerName x\nPidFile {pid}\nDefaultRuntimeDir {root}\nErrorLog /dev/null\n\
             LoadModule mpm_{mpm}_module /usr/lib/apache2/modules/mod_mpm_{mpm}.so\n\
             LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
             User nobody\nGroup nogroup\nListen {host}:{port}\n{limits}\nDocumentRoot /var\nTimeout 60\n"
        );
        let file = place.file(&format!("{name}.conf"), &text);
        command("apache2", &["-X", "-f", &file].map(|word| if word == "-X" { "-DFOREGROUND" } else { word }))
    }
}

fn lighttpd(place: &Place, host: &str, port: u16, name: &str) -> Make {
    lighttpd_with(place, host, port, name, 2)
}

fn lighttpd_with(place: &Place, host: &str, port: u16, name: &str, limit: u32) -> Make {
    let text = format!(
        "server.bind = \"{host}\"\nserver.port = {port}\nserver.document-root = \"/var\"\n\
         server.max-connections = {limit}\nserver.max-fds = 64\n"
    );
    command("lighttpd", &["-D", "-f", &place.file(&format!("{name}.conf"), &text)])
}

impl Zoo<'_> {
    fn web_servers(&mut self) {
        let plain = || nginx("worker_connections 64;", 512);
        self.add("nginx", "idle", plain(), idle(), IDLE);
        self.add("nginx", "loaded", plain(), loaded(HTTP), SERVES);
        self.add("nginx", "stopped, connections wait", plain(), stopped(Stop::Workers), STOPPED);
        self.add("nginx", "stopped, nothing arrives", plain(), stopped_idle(Stop::Workers), STOPPED);
        let few = nginx("worker_connections 8;", 512);
        self.add(
            "nginx",
            "at worker_connections",
            few,
            Crowd { load: Some((1, HTTP, 30, 0)), ..refused((12, PARTIAL)) },
            REFUSES,
        )
        .misleading = &["healthy"];
        let low = nginx("worker_connections 64;", 16);
        self.add("nginx", "out of descriptors", low, limit((40, PARTIAL)), NO_DESCRIPTORS);
        for host in ["[::1]", "unix"] {
            let name = format!("nginx on {host}");
            self.add_at(host, &name, "idle", plain(), idle(), IDLE);
            self.add_at(host, &name, "loaded", plain(), loaded(HTTP), SERVES);
            self.add_at(host, &name, "stopped", plain(), stopped(Stop::Workers), STOPPED);
            let low = nginx("worker_connections 64;", 16);
            self.add_at(host, &name, "out of descriptors", low, limit((40, PARTIAL)), NO_DESCRIPTORS);
        }
        self.add("haproxy", "idle", haproxy, idle(), IDLE);
        self.add("haproxy", "loaded", haproxy, loaded(HTTP), SERVES);
        self.add("haproxy", "at maxconn", haproxy, limit((2, PARTIAL)), LIMIT);
        self.add("haproxy", "stopped", haproxy, stopped(Stop::All), STOPPED);
        for mpm in ["event", "prefork"] {
            let name = format!("apache {mpm}");
            self.add(&name, "idle", apache(mpm), idle(), IDLE);
            self.add(&name, "loaded", apache(mpm), loaded(HTTP), SERVES);
            self.add(&name, "all workers busy", apache(mpm), limit((3, PARTIAL)), LIMIT);
            self.add(&name, "stopped", apache(mpm), stopped(Stop::All), STOPPED);
        }
        self.add("lighttpd", "idle", lighttpd, idle(), IDLE);
        let many = |p: &Place, h: &str, port: u16, n: &str| lighttpd_with(p, h, port, n, 50);
        self.add("lighttpd", "loaded", many, loaded(HTTP), SERVES);
        self.add("lighttpd", "at max-connections", lighttpd, limit((2, PARTIAL)), LIMIT);
        self.add("lighttpd", "stopped", lighttpd, stopped(Stop::All), STOPPED);
    }

    fn databases(&mut self) {
        let redis = |_: &Place, host: &str, port: u16, _: &str| {
            let port = port.to_string();
            let limits = ["--maxclients", "3", "--save", "", "--enable-debug-command", "yes"];
            command("redis-server", &[&["--bind", host, "--port", &port], &limits[..]].concat())
        };
        self.add("redis", "idle", redis, idle(), IDLE);
        self.add("redis", "loaded", redis, Crowd { load: Some((1, PING, 5, 0)), ..idle() }, SERVES);
        self.add("redis", "at maxclients", redis, refused((3, b"")), REFUSES);
        self.add("redis", "in DEBUG SLEEP", redis, blocked((1, b"DEBUG SLEEP 20\r\n")), OCCUPIED);
        let lua = b"EVAL \"while true do end\" 0\r\n";
        self.add("redis", "in a Lua script", redis, blocked((1, lua)), BUSY);
        self.add("redis", "stopped", redis, stopped(Stop::All), STOPPED);
        let redis_unix = |place: &Place, _: &str, port: u16, _: &str| {
            let path = place.path(&format!("{port}.sock"));
            let words = ["--port", "0", "--unixsocket", &path, "--save", "", "--maxclients", "3"];
            command("redis-server", &words)
        };
        self.add_at("unix", "redis on unix", "idle", redis_unix, idle(), IDLE);
        self.add_at("unix", "redis on unix", "loaded", redis_unix, loaded(PING), SERVES).crowd.load =
            Some((1, PING, 5, 0));
        let lua = b"EVAL \"while true do end\" 0\r\n";
        self.add_at("unix", "redis on unix", "in a Lua script", redis_unix, blocked((1, lua)), BUSY);
        self.add_at("unix", "redis on unix", "stopped", redis_unix, stopped(Stop::All), STOPPED);
        let cached = |_: &Place, host: &str, port: u16, _: &str| {
            command(
                "memcached",
                &["-u", "nobody", "-l", host, "-p", &port.to_string(), "-U", "0", "-c", "20", "-t", "1"],
            )
        };
        self.add("memcached", "idle", cached, idle(), IDLE);
        let version = b"version\r\n";
        self.add("memcached", "loaded", cached, Crowd { load: Some((1, version, 5, 0)), ..idle() }, SERVES);
        let at_limit = self.add("memcached", "at -c", cached, refused((30, b"")), REFUSES);
        at_limit.right = &["accepting", "refusing", "at_limit"];
        self.add("memcached", "stopped", cached, stopped(Stop::All), STOPPED);
        let postgres = |place: &Place, host: &str, port: u16, name: &str| {
            let folder = place.path(&format!("pg{name}"));
            let program = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().next()?.path().join("bin");
            let (init, run) = (program.join("initdb"), program.join("postgres"));
            let as_user = |program: &std::path::Path, more: &str| {
                format!(
                    "exec setpriv --reuid postgres --regid postgres --clear-groups {} -D {folder} {more}",
                    program.display()
                )
            };
            let made = place.prepare("sh", &["-c", &as_user(&init, "-A trust --no-sync")]);
            let options =
                format!("-h {host} -p {port} -k '' -c max_connections=4 -c superuser_reserved_connections=0");
            command("sh", &["-c", &as_user(&run, &options)]).filter(|_| made)
        };
        // A request for SSL, which is answered with one byte.
        let ssl = b"\0\0\0\x08\x04\xd2\x16\x2f";
        self.add("postgres", "idle", postgres, idle(), IDLE);
        self.add("postgres", "loaded", postgres, loaded(ssl), SERVES);
        self.add("postgres", "stopped", postgres, stopped(Stop::All), STOPPED);
        let startup = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        self.add("postgres", "at max_connections", postgres, refused((6, startup)), REFUSES).misleading =
            &["healthy"];
    }

    fn runtimes(&mut self) {
        let node = |mode: &'static str| {
            move |place: &Place, host: &str, port: u16, _: &str| {
                let lock = place.lock();
                let port = port.to_string();
                let words =
                    [&format!("ZOO_LOCK={lock}"), "node", &format!("{APPS}/app.js"), mode, host, &port];
                find("node").and_then(|_| command("env", &words))
            }
        };
        self.add("node", "idle", node("http"), idle(), IDLE);
        self.add("node", "loaded", node("http"), loaded(HTTP), SERVES);
        self.add("node", "stopped", node("http"), stopped(Stop::All), STOPPED);
        self.add("node", "blocked by a computation", node("http"), blocked((1, COMPUTE)), BUSY);
        self.add("node", "blocked by file reads", node("http"), blocked((1, FILE)), BUSY);
        self.add("node", "blocked by a lock", node("http"), blocked((1, LOCK)), OCCUPIED);
        self.add("node", "at maxConnections", node("limit"), refused((3, b"")), REFUSES);
        self.add("node", "hangs after accept", node("hang"), waiting(5), UNREAD);
        let few =
            move |p: &Place, h: &str, port: u16, n: &str| few_descriptors(node("http")(p, h, port, n), 50);
        self.add("node", "out of descriptors", few, refused((60, b"")), NO_DESCRIPTORS);
        let program = self.place.path("server-go");
        let source = format!("{APPS}/main.go");
        let built = find("go").is_some() && self.place.prepare("go", &["build", "-o", &program, &source]);
        let go = move |mode: &'static str| {
            let program = program.clone();
            move |_: &Place, host: &str, port: u16, _: &str| {
                command(&program, &[mode, &format!("{host}:{port}")]).filter(|_| built)
            }
        };
        self.add("Go", "idle", go("http"), idle(), IDLE);
        self.add("Go", "loaded", go("http"), loaded(HTTP), SERVES);
        self.add("Go", "stopped", go("http"), stopped(Stop::All), STOPPED);
        self.add("Go", "at a LimitListener", go("limit"), limit((3, b"")), NOT_ACCEPTING).right =
            &["not_accepting", "at_limit"];
        self.add("Go", "never accepts", go("never"), waiting(3), NOT_ACCEPTING);
        self.add("Go", "its accept loop ended", go("ended"), waiting(3), NOT_ACCEPTING);
        self.add("Go", "hangs after accept", go("hang"), waiting(5), UNREAD);
        self.add("Go", "accepts 20 a second of 130", go("slow"), overrun(), &["slow", "overflow"]);
        let few =
            move |p: &Place, h: &str, port: u16, n: &str| few_descriptors(go("http")(p, h, port, n), 16);
        self.add("Go", "out of descriptors", few, limit((30, b"")), NO_DESCRIPTORS);
        let folder = self.place.folder.display().to_string();
        let compiled = self.place.prepare("javac", &["-d", &folder, &format!("{APPS}/Zoo.java")]);
        let java = |mode: &'static str| {
            let folder = folder.clone();
            move |_: &Place, host: &str, port: u16, _: &str| {
                command("java", &["-Xmx64m", "-cp", &folder, "Zoo", mode, host, &port.to_string()])
                    .filter(|_| compiled)
            }
        };
        self.add("Java, a pool", "idle", java("pool"), idle(), IDLE);
        self.add("Java, a pool", "loaded", java("pool"), loaded(HTTP), SERVES);
        self.add("Java, a pool", "hangs after accept", java("hang"), waiting(5), UNREAD);
        self.add("Java, a pool", "stopped", java("pool"), stopped(Stop::All), STOPPED);
        self.add("Java NIO", "idle", java("nio"), idle(), IDLE);
        let compiled = self.place.prepare("erlc", &[&format!("{APPS}/zoo.erl")]);
        let folder = self.place.folder.display().to_string();
        let erlang = move |mode: &'static str| {
            let folder = folder.clone();
            move |_: &Place, _: &str, port: u16, _: &str| {
                let run = format!("zoo:main([\"{mode}\",\"{port}\"]).");
                command("erl", &["-noshell", "-noinput", "-pa", &folder, "-eval", &run]).filter(|_| compiled)
            }
        };
        self.add("Erlang", "idle", erlang("serve"), idle(), IDLE);
        self.add("Erlang", "loaded", erlang("serve"), loaded(HTTP), SERVES);
        self.add("Erlang", "never accepts", erlang("never"), waiting(3), NOT_ACCEPTING);
        self.add("Erlang", "hangs after accept", erlang("hang"), waiting(5), UNREAD);
    }

    fn others(&mut self) {
        let fpm = |place: &Place, host: &str, port: u16, name: &str| {
            let text = format!(
                "[global]\nerror_log = /dev/null\ndaemonize = no\n[www]\nuser = nobody\nlisten = {host}:{port}\n\
                 pm = static\npm.max_children = 2\n"
            );
            let file = place.file(&format!("{name}.fpm"), &text);
            let mut programs = ["php-fpm8.2", "php-fpm8.4", "php-fpm8.3"].iter();
            programs.find_map(|program| command(program, &["-F", "-y", &file]))
        };
        self.add("php-fpm", "idle", fpm, idle(), IDLE);
        self.add("php-fpm", "all children busy", fpm, limit((2, b"\x01\x01\0\x01")), LIMIT);
        self.add("php-fpm", "children stopped", fpm, stopped(Stop::Workers), STOPPED);
        let socat = |_: &Place, host: &str, port: u16, _: &str| {
            let listen = format!("TCP-LISTEN:{port},bind={host},fork,max-children=2,reuseaddr");
            command("socat", &[&listen, "EXEC:cat"])
        };
        self.add("socat", "idle", socat, idle(), IDLE);
        self.add(
            "socat",
            "loaded",
            socat,
            Crowd { load: Some((1, PING, 20, 0)), ..idle() },
            &["healthy", "accepting", "at_limit"],
        );
        self.add("socat", "at max-children", socat, limit((2, PING)), LIMIT);
        self.add("socat", "stopped", socat, stopped(Stop::All), STOPPED);
        let key = self.place.path("hostkey");
        let made = self.place.prepare("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
        let _ = std::fs::create_dir("/run/sshd");
        let sshd = move |_: &Place, host: &str, port: u16, _: &str| {
            let (bind, key) = (format!("ListenAddress={host}:{port}"), format!("HostKey={key}"));
            let words = [
                "-D",
                "-f",
                "/dev/null",
                "-o",
                &bind,
                "-o",
                &key,
                "-o",
                "MaxStartups=2",
                "-o",
                "PidFile=none",
            ];
            command("/usr/sbin/sshd", &words).filter(|_| made)
        };
        let banner = b"SSH-2.0-zoo\r\n";
        self.add("sshd", "idle", sshd.clone(), idle(), IDLE);
        self.add("sshd", "loaded", sshd.clone(), Crowd { load: Some((1, banner, 50, 0)), ..idle() }, SERVES);
        self.add("sshd", "at MaxStartups", sshd.clone(), refused((2, b"")), REFUSES);
        self.add("sshd", "stopped", sshd, stopped(Stop::All), STOPPED);
    }
}
