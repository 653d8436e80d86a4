//! Fault injection: this binary defines some of libc's functions itself and makes the n-th call of a thread fail with
//! the errno of a plan. A test that counts open descriptors runs in a process of its own.

mod interpose;

mod accept4;
mod epoll_ctl;
mod epoll_wait;
mod syscall_counts;
mod tcp_info;
