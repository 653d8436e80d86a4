/*
 * The accept loop of an outage, in C++: at its limit it ends early, and the connections left in the queue cause no
 * further event.
 *
 *   outage MODE LIMIT
 *
 *   class    edge-triggered; over the limit it closes the connection and leaves the accept loop
 *   counter  edge-triggered; at the limit it leaves the accept loop; a close lowers the counter and accepts nothing
 *   threads  four threads on one epoll, EPOLLET and EPOLLONESHOT; at the limit the listener is not rearmed
 *
 * It listens on 127.0.0.1 and prints its port.
 */
#include <arpa/inet.h>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

static int check(int result, const char *what) {
    if (result < 0) throw std::system_error(errno, std::generic_category(), what);
    return result;
}

class Descriptor {
public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    ~Descriptor() { close(fd_); }
    int get() const { return fd_; }

private:
    int fd_;
};

class Poller {
public:
    Poller() : epoll_(check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {}
    void set(int operation, int fd, unsigned mask, void *data) {
        epoll_event event{};
        event.events = mask;
        event.data.ptr = data;
        check(epoll_ctl(epoll_.get(), operation, fd, &event), "epoll_ctl");
    }
    template <typename Handler> void run(Handler handle) {
        for (;;) {
            epoll_event events[16];
            int count = epoll_wait(epoll_.get(), events, 16, -1);
            for (int i = 0; i < count; i++) handle(events[i].data.ptr);
        }
    }

private:
    Descriptor epoll_;
};

class Server {
public:
    Server(std::string mode, int limit)
        : mode_(std::move(mode)), limit_(limit),
          listener_(check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket")) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        check(bind(listener_.get(), reinterpret_cast<sockaddr *>(&address), length), "bind");
        check(listen(listener_.get(), 64), "listen");
        check(getsockname(listener_.get(), reinterpret_cast<sockaddr *>(&address), &length), "getsockname");
        poller_.set(EPOLL_CTL_ADD, listener_.get(), mask(), nullptr);
        std::cout << ntohs(address.sin_port) << std::endl;
    }

    void run() {
        std::vector<std::thread> threads;
        for (int i = 1; i < (mode_ == "threads" ? 4 : 1); i++) threads.emplace_back([this] { loop(); });
        loop();
    }

private:
    unsigned mask() const { return EPOLLIN | EPOLLET | (mode_ == "threads" ? unsigned(EPOLLONESHOT) : 0); }

    void loop() {
        poller_.run([this](void *data) { data ? serve(static_cast<Descriptor *>(data)) : accept_all(); });
    }

    void accept_all() {
        for (;;) {
            if (mode_ != "class" && count_ >= limit_) return; // the fault
            int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0) break;
            auto client = std::make_unique<Descriptor>(fd);
            if (count_ >= limit_) return; // the fault
            count_++;
            poller_.set(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, client.get());
            client.release();
        }
        if (mode_ == "threads") poller_.set(EPOLL_CTL_MOD, listener_.get(), mask(), nullptr);
    }

    void serve(Descriptor *client) {
        char buffer[64];
        ssize_t length = read(client->get(), buffer, sizeof buffer);
        if (length > 0 || (length < 0 && errno == EAGAIN)) return;
        delete client;
        count_--;
    }

    const std::string mode_;
    const int limit_;
    std::atomic<int> count_{0};
    Descriptor listener_;
    Poller poller_;
};

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Server(argv[1], std::atoi(argv[2])).run();
}
