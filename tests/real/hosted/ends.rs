//! The ends of an acceptor: stop, closed listener, `into_listener`, drop, and a failed build.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};

use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{LevelTriggered, State, Trigger};
use socket2::SockRef;
use tokio::runtime::Builder;

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

#[test]
fn stop_ends_accept_and_keeps_the_queue() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let mut acceptor = trigger.on(listener).build_tokio().unwrap();
            let control = acceptor.control();
            let accepting =
                tokio::spawn(async move { (acceptor.accept().await.unwrap().is_none(), acceptor) });
            tokio::task::yield_now().await;
            control.stop();
            let (over, mut acceptor) = accepting.await.unwrap();
            assert!(over);
            assert_eq!(acceptor.state(), State::Stopped);
            let clients = connect_many(address, 9);
            assert!(acceptor.accept().await.unwrap().is_none(), "the end is final");
            let listener = acceptor.into_listener();
            assert_eq!(accept_queue(&listener).unwrap().depth, 9);

            let mut next = trigger.on(listener).build_tokio().unwrap();
            for _ in 0..9 {
                serve(&next.accept().await.unwrap().unwrap());
            }
            assert_all_served(&clients);
        }
    });
}

#[test]
fn into_listener_during_a_pass_keeps_the_queue() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let clients = connect_many(address, 9);
            let mut acceptor = trigger.on(listener).build_tokio().unwrap();
            for _ in 0..4 {
                serve(&acceptor.accept().await.unwrap().unwrap());
            }
            let mut next = trigger.on(acceptor.into_listener()).build_tokio().unwrap();
            for _ in 0..5 {
                serve(&next.accept().await.unwrap().unwrap());
            }
            assert_all_served(&clients);
        }
    });
}

#[test]
fn closed_listener_is_reported_once() {
    on_each(|| async {
        let (listener, _) = listen();
        let copy = listener.try_clone().unwrap();
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        SockRef::from(&copy).shutdown(Shutdown::Both).unwrap();
        assert_eq!(acceptor.accept().await.unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(acceptor.accept().await.unwrap().is_none());
        assert!(acceptor.accept_std().await.unwrap().is_none());
    });
}

#[test]
fn build_outside_a_runtime_returns_the_listener() {
    let (listener, address) = listen();
    let error = LevelTriggered::on(listener).build_tokio().unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    let listener = error.into_listener();
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(accept_queue(&listener).unwrap().depth, 1);
}

#[test]
fn ended_runtime_is_an_error() {
    let (listener, _) = listen();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut acceptor = runtime.block_on(async { LevelTriggered::on(listener).build_tokio().unwrap() });
    drop(runtime);
    let other = Builder::new_current_thread().build().unwrap();
    assert!(other.block_on(acceptor.accept_std()).is_err());
    assert!(other.block_on(acceptor.accept_std()).unwrap().is_none(), "reported once");
}

#[test]
fn drop_deregisters_from_the_runtime() {
    on_each(|| async {
        for _ in 0..100 {
            let (listener, address) = listen();
            let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
            let clients = connect_many(address, 1);
            serve(&acceptor.accept().await.unwrap().unwrap());
            assert_all_served(&clients);
        }
    });
}
