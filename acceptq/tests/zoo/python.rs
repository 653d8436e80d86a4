//! Servers in Python.

use crate::cell::{Crowd, Stop};
use crate::place::{APPS, Place, find};
use crate::servers::*;

impl Zoo<'_> {
    /// Adds the servers in Python.
    pub(crate) fn python(&mut self) {
        self.gunicorn();
        self.uvicorn();
        let app = |mode: &'static str| {
            move |place: &Place, host: &str, port: u16, _: &str| {
                let (lock, app) = (format!("ZOO_LOCK={}", place.lock()), format!("{APPS}/app.py"));
                let words = [lock.as_str(), "/usr/bin/python3", &app, mode, host, &port.to_string()];
                find(words[1]).and_then(|_| command("env", &words))
            }
        };
        self.add("python, a thread each", "idle", app("threads"), idle(), IDLE);
        self.add("python, a thread each", "loaded", app("threads"), loaded(HTTP), SERVES);
        self.add(
            "python, one by one",
            "blocked by a computation",
            app("single"),
            blocked((1, COMPUTE)),
            OCCUPIED,
        );
        self.add("python, one by one", "blocked by a lock", app("single"), blocked((1, LOCK)), OCCUPIED);
        self.add("python, one by one", "blocked by file reads", app("single"), blocked((1, FILE)), OCCUPIED);
        self.add("python, one by one", "waits for a slow client", app("single"), limit((1, b"")), OCCUPIED);
        self.add("python", "never accepts", app("never"), waiting(3), NOT_ACCEPTING);
        self.add("python", "its accept thread died", app("died"), waiting(3), NOT_ACCEPTING);
        self.add("python", "hangs after accept", app("hang"), waiting(5), UNREAD);
        self.add("python", "accepts 20 a second of 130", app("slow"), overrun(), &["slow", "overflow"]);
    }

    fn gunicorn(&mut self) {
        let gunicorn = |class: &'static str| {
            move |_: &Place, host: &str, port: u16, _: &str| {
                let bind = format!("{host}:{port}");
                let mut words = vec!["-b", &bind, "--chdir", APPS, "-t", "120", "--backlog", "128"];
                words.extend(match class {
                    "sync" => ["-w", "2", "-k", "sync"].as_slice(),
                    _ => &["-w", "1", "-k", "gthread", "--threads", "2", "--worker-connections", "4"],
                });
                words.push("app:wsgi");
                command("/usr/bin/gunicorn", &words)
            }
        };
        for class in ["sync", "gthread"] {
            let name = format!("gunicorn {class}");
            self.add(&name, "idle", gunicorn(class), idle(), IDLE);
            self.add(&name, "loaded", gunicorn(class), loaded(HTTP), SERVES);
            self.add(&name, "stopped", gunicorn(class), stopped(Stop::All), STOPPED);
            self.add(&name, "workers stopped", gunicorn(class), stopped(Stop::Workers), STOPPED);
            self.add(&name, "all workers sleep in a request", gunicorn(class), limit((6, SLEEP)), LIMIT)
                .misleading = &["busy"];
            self.add(&name, "all workers compute", gunicorn(class), limit((6, COMPUTE)), OCCUPIED);
            self.add(&name, "all workers read files", gunicorn(class), limit((6, FILE)), OCCUPIED);
        }
        self.add(
            "gunicorn gthread",
            "threads sleep, others wait inside",
            gunicorn("gthread"),
            waiting_sleep(3),
            UNREAD,
        )
        .misleading = &["at_limit"];
    }

    fn uvicorn(&mut self) {
        let uvicorn = |_: &Place, host: &str, port: u16, _: &str| {
            let port = port.to_string();
            command(
                "/usr/bin/uvicorn",
                &["--app-dir", APPS, "--host", host, "--port", &port, "--log-level", "critical", "app:asgi"],
            )
        };
        self.add("uvicorn", "idle", uvicorn, idle(), IDLE);
        self.add("uvicorn", "loaded", uvicorn, loaded(HTTP), SERVES);
        self.add("uvicorn", "stopped", uvicorn, stopped(Stop::All), STOPPED);
        self.add("uvicorn", "blocked by a computation", uvicorn, blocked((1, COMPUTE)), BUSY);
        self.add("uvicorn", "blocked by file reads", uvicorn, blocked((1, FILE)), BUSY);
        self.add("uvicorn", "blocked by a sleep", uvicorn, blocked((1, SLEEP)), OCCUPIED);
        self.add(
            "uvicorn",
            "out of descriptors",
            move |p: &Place, h: &str, port: u16, n: &str| few_descriptors(uvicorn(p, h, port, n), 16),
            limit((30, b"")),
            NO_DESCRIPTORS,
        );
        let uwsgi = |_: &Place, host: &str, port: u16, _: &str| {
            let bind = format!("{host}:{port}");
            command(
                "uwsgi",
                &[
                    "--plugin",
                    "python3",
                    "--http-socket",
                    &bind,
                    "--processes",
                    "2",
                    "--master",
                    "--chdir",
                    APPS,
                    "-w",
                    "app:wsgi",
                ],
            )
        };
        self.add("uwsgi", "idle", uwsgi, idle(), IDLE);
        self.add("uwsgi", "loaded", uwsgi, loaded(HTTP), SERVES);
        self.add("uwsgi", "all workers sleep in a request", uwsgi, limit((4, SLEEP)), LIMIT);
        self.add("uwsgi", "stopped", uwsgi, stopped(Stop::All), STOPPED);
    }
}

fn waiting_sleep(count: usize) -> Crowd {
    Crowd { first: (count + 1, SLEEP), ..Crowd::default() }
}
