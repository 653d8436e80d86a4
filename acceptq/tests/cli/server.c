/*
 * Test servers: hand-written accept loops with common faults.
 *
 *   server MODE ADDRESS LIMIT
 *
 * ADDRESS is an IPv4 or IPv6 address, or the path of a Unix socket. The server prints its port once it
 * listens.
 *
 *   edge      edge-triggered; over the limit it closes the connection and leaves the accept loop: strands
 *   level     likewise, level-triggered
 *   busy      edge-triggered, drains to EAGAIN, answers and closes
 *   spin      level-triggered; at the limit it stays armed and does not accept
 *   pause     level-triggered; at the limit it sets the mask to 0 and never rearms
 *   resume    likewise, but rearms when a connection closes
 *   remove    level-triggered; at the limit it removes the listener from the epoll
 *   hoard     level-triggered; never closes a connection; at the limit it sets the mask to 0
 *   nofile    level-triggered, without a connection limit, RLIMIT_NOFILE is LIMIT
 *   oneshot   one-shot; at the limit it does not rearm
 *   slow      level-triggered; accepts one, answers, closes, and sleeps 20 ms
 *   member    two listeners on the port (SO_REUSEPORT), the second one in no epoll
 *   blocking  accept(2) in a loop, no epoll
 *   nap       non-blocking accept4(2) and a sleep in a loop, no epoll
 *   stuck     edge-triggered; sleeps in a timer after the first connection
 *
 * MODE+busy runs another thread that computes. MODE+orphan serves in a second thread after the main thread
 * has exited. MODE+defer sets TCP_DEFER_ACCEPT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char *mode;
static int limit, count, epfd, listener, defer_seconds;

static int is(const char *name) { return strcmp(mode, name) == 0; }

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int listen_at(const char *address, in_port_t port) {
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
    } a;
    socklen_t length;
    int yes = 1;
    memset(&a, 0, sizeof a);
    if (address[0] == '/') {
        a.un.sun_family = AF_UNIX;
        strncpy(a.un.sun_path, address, sizeof a.un.sun_path - 1);
        length = sizeof a.un;
    } else if (strchr(address, ':')) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = port;
        inet_pton(AF_INET6, address, &a.v6.sin6_addr);
        length = sizeof a.v6;
    } else {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = port;
        inet_pton(AF_INET, address, &a.v4.sin_addr);
        length = sizeof a.v4;
    }
    int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | (is("blocking") ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0) die("socket");
    if (is("member") && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes)) die("SO_REUSEPORT");
    if (defer_seconds && setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_seconds, sizeof defer_seconds))
        die("TCP_DEFER_ACCEPT");
    if (bind(fd, &a.sa, length)) die("bind");
    if (listen(fd, 64)) die("listen");
    return fd;
}

static in_port_t port_of(int fd) {
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &length)) die("getsockname");
    if (a.ss_family == AF_INET) return ((struct sockaddr_in *)&a)->sin_port;
    if (a.ss_family == AF_INET6) return ((struct sockaddr_in6 *)&a)->sin6_port;
    return 0;
}

static void watch(int op, int fd, unsigned mask) {
    struct epoll_event event = {.events = mask, .data.fd = fd};
    if (epoll_ctl(epfd, op, fd, &event)) die("epoll_ctl");
}

/* Handles the limit. Returns nonzero if the accept loop must end. */
static int at_limit(void) {
    if (count < limit || is("nofile")) return 0;
    if (is("spin")) return 1;
    if (is("hoard")) return watch(EPOLL_CTL_MOD, listener, 0), 1;
    if (is("pause") || is("resume")) return watch(EPOLL_CTL_MOD, listener, 0), 1;
    if (is("remove")) return watch(EPOLL_CTL_DEL, listener, 0), 1;
    return is("oneshot");
}

static void accept_all(void) {
    while (!at_limit()) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (is("oneshot")) watch(EPOLL_CTL_MOD, listener, EPOLLIN | EPOLLONESHOT);
            return;
        }
        if (is("busy") || is("slow")) {
            if (write(fd, "hello\n", 6) < 0) perror("write");
            close(fd);
            if (is("slow")) return (void)usleep(20000);
        } else if ((is("edge") || is("level")) && count >= limit) {
            close(fd);
            return; /* the fault: the remaining connections cause no edge */
        } else {
            count++;
            if (!is("nofile") && !is("hoard")) watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP);
        }
        if (is("stuck"))
            for (;;) sleep(1000);
    }
}

static void serve(int fd) {
    char buffer[64];
    ssize_t length = read(fd, buffer, sizeof buffer);
    if (length == 0 || (length < 0 && errno != EAGAIN)) {
        close(fd);
        count--;
        if (is("resume")) watch(EPOLL_CTL_MOD, listener, EPOLLIN);
    }
}

static void *compute(void *unused) {
    for (volatile unsigned long x = 0; x != ~0UL; x++) continue;
    return unused;
}

static void start(void *run(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL)) die("pthread_create");
}

static void *serve_all(void *unused) {
    for (;;) {
        struct epoll_event events[16];
        if (is("blocking") || is("nap")) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0) close(fd);
            if (is("nap")) usleep(50000);
            continue;
        }
        int n = epoll_wait(epfd, events, 16, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener) accept_all();
            else serve(events[i].data.fd);
        }
    }
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    char *busy = strstr(argv[1], "+busy"), *orphan = strstr(argv[1], "+orphan");
    if (strstr(argv[1], "+defer")) defer_seconds = 600;
    argv[1][strcspn(argv[1], "+")] = 0;
    mode = argv[1];
    limit = atoi(argv[3]);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (busy) start(compute);
    listener = listen_at(argv[2], 0);
    if (is("member")) {
        /* The kernel assigns half of the connections to the second listener. */
        listen_at(argv[2], port_of(listener));
    }
    epfd = epoll_create1(EPOLL_CLOEXEC);
    if (is("nofile")) {
        struct rlimit few = {.rlim_cur = limit, .rlim_max = limit};
        if (setrlimit(RLIMIT_NOFILE, &few)) die("setrlimit");
    }
    if (is("oneshot")) watch(EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLONESHOT);
    else if (!is("blocking") && !is("nap"))
        watch(EPOLL_CTL_ADD, listener, EPOLLIN | (is("edge") || is("busy") || is("stuck") ? EPOLLET : 0));
    printf("%d\n", ntohs(port_of(listener)));
    fflush(stdout);
    if (orphan) {
        start(serve_all);
        pthread_exit(NULL);
    }
    serve_all(NULL);
}
