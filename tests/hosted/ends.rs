//! How it ends: stopped, dead, taken apart, dropped, or never begun.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};

use epoll_acceptor::{LevelTriggered, State, Trigger, accept_queue};
use socket2::SockRef;
use tokio::runtime::Builder;

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

#[test]
fn a_stop_ends_accept_and_keeps_the_queue() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let mut acceptor = trigger.on(listener).into_async().unwrap();
            let control = acceptor.control();
            let asked = tokio::spawn(async move { (acceptor.accept().await.unwrap().is_none(), acceptor) });
            tokio::task::yield_now().await;
            control.stop();
            let (over, mut acceptor) = asked.await.unwrap();
            assert!(over);
            assert_eq!(acceptor.state(), State::Stopped);
            let clients = connect_many(address, 9);
            assert!(acceptor.accept().await.unwrap().is_none(), "over is over");
            let listener = acceptor.into_listener();
            assert_eq!(accept_queue(&listener).unwrap().depth, 9);

            let mut heir = trigger.on(listener).into_async().unwrap();
            for _ in 0..9 {
                serve(&heir.accept().await.unwrap().unwrap());
            }
            assert_all_served(&clients);
        }
    });
}

#[test]
fn a_listener_taken_out_in_the_middle_of_a_pass_keeps_its_queue() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let clients = connect_many(address, 9);
            let mut acceptor = trigger.on(listener).into_async().unwrap();
            for _ in 0..4 {
                serve(&acceptor.accept().await.unwrap().unwrap());
            }
            let mut heir = trigger.on(acceptor.into_listener()).into_async().unwrap();
            for _ in 0..5 {
                serve(&heir.accept().await.unwrap().unwrap());
            }
            assert_all_served(&clients);
        }
    });
}

#[test]
fn a_dead_listener_is_told_once() {
    on_each(|| async {
        let (listener, _) = listen();
        let eye = listener.try_clone().unwrap();
        let mut acceptor = LevelTriggered::on(listener).into_async().unwrap();
        SockRef::from(&eye).shutdown(Shutdown::Both).unwrap();
        assert_eq!(acceptor.accept().await.unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(acceptor.accept().await.unwrap().is_none());
        assert!(acceptor.accept_std().await.unwrap().is_none());
    });
}

#[test]
fn without_a_runtime_the_listener_comes_back() {
    let (listener, address) = listen();
    let error = LevelTriggered::on(listener).into_async().unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    let listener = error.into_listener();
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(accept_queue(&listener).unwrap().depth, 1);
}

#[test]
fn a_runtime_that_ended_is_an_error() {
    let (listener, _) = listen();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut acceptor = runtime.block_on(async { LevelTriggered::on(listener).into_async().unwrap() });
    drop(runtime);
    let other = Builder::new_current_thread().build().unwrap();
    assert!(other.block_on(acceptor.accept_std()).is_err());
}

#[test]
fn a_dropped_acceptor_leaves_the_runtime_as_it_was() {
    on_each(|| async {
        for _ in 0..100 {
            let (listener, address) = listen();
            let mut acceptor = LevelTriggered::on(listener).into_async().unwrap();
            let clients = connect_many(address, 1);
            serve(&acceptor.accept().await.unwrap().unwrap());
            assert_all_served(&clients);
        }
    });
}
