//! The end of a service: `end_on` lets the server shut down when no client is left whose request may be on its way.

use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use epoll_acceptor::acceptor::GracefulConnection;
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{AsyncAcceptor, LevelTriggered, Pending, Refusal};
use futures_core::Stream;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{LONG, connect_many, listen, on_each};

const SERVE: Pending = Pending::Serve(Refusal::Close);

async fn is_over(future: Pin<&mut impl Future<Output = ()>>) -> bool {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().is_some_and(|future| future.poll(cx).is_ready()))).await
}

async fn next(
    acceptor: &mut AsyncAcceptor<std::net::TcpListener>,
) -> Option<GracefulConnection<tokio::net::TcpStream>> {
    let next = poll_fn(|cx| Pin::new(&mut *acceptor).poll_next(cx)).await;
    next.map(|connection| connection.unwrap())
}

fn acceptor() -> (AsyncAcceptor<std::net::TcpListener>, std::net::SocketAddr) {
    let (listener, address) = listen();
    let builder = LevelTriggered::on(listener).handshake_grace(Duration::from_millis(10));
    (builder.build_tokio().unwrap(), address)
}

#[test]
fn silent_clients_are_waited_for() {
    on_each(|| async {
        let (mut acceptor, address) = acceptor();
        let control = acceptor.control();
        let mut clients = connect_many(address, 3);
        let mut ended = pin!(acceptor.end_on(async {}, SERVE, LONG));
        assert!(!is_over(ended.as_mut()).await, "three are pending");
        let (connections, mut received) = unbounded_channel();
        let stream = tokio::spawn(async move {
            while let Some(connection) = next(&mut acceptor).await {
                connections.send(connection).unwrap();
            }
        });
        let mut first = received.recv().await.unwrap();
        let second = received.recv().await.unwrap();
        let third = received.recv().await.unwrap();
        while !control.state().is_terminal() {
            assert!(!is_over(ended.as_mut()).await && !stream.is_finished(), "three are silent");
            tokio::task::yield_now().await;
        }
        assert_eq!(control.shutdown_report().unwrap().served, 3);
        // One sends something, one is dropped, one is taken out.
        clients[0].write_all(b"request").unwrap();
        assert_eq!(first.read(&mut [0; 9]).await.unwrap(), 7);
        assert!(!is_over(ended.as_mut()).await, "two are silent");
        drop(second);
        assert!(!is_over(ended.as_mut()).await && !stream.is_finished(), "one is silent");
        let (_third, guard) = third.into_parts();
        assert!(!is_over(ended.as_mut()).await && !stream.is_finished(), "its guard is there");
        drop(guard);
        ended.await;
        stream.await.unwrap();
    });
}

#[test]
fn client_that_leaves_is_not_waited_for() {
    on_each(|| async {
        let (mut acceptor, address) = acceptor();
        let client = TcpStream::connect(address).unwrap();
        let mut connection = next(&mut acceptor).await.unwrap();
        let ended = acceptor.end_on(async {}, SERVE, LONG);
        let accepting = tokio::spawn(async move { while next(&mut acceptor).await.is_some() {} });
        drop(client);
        assert_eq!(connection.read(&mut [0; 9]).await.unwrap(), 0);
        ended.await;
        accepting.await.unwrap();
    });
}

#[test]
fn silence_has_a_deadline() {
    on_each(|| async {
        let (mut acceptor, address) = acceptor();
        let _client = TcpStream::connect(address).unwrap();
        let _connection = next(&mut acceptor).await.unwrap();
        let ended = acceptor.end_on(async {}, SERVE, Duration::from_millis(30));
        let accepting = tokio::spawn(async move { while next(&mut acceptor).await.is_some() {} });
        ended.await;
        accepting.await.unwrap();
    });
}

/// A waker that owns a future of `end_on`.
struct Owning(#[allow(dead_code, reason = "it is dropped with the waker")] Box<dyn Send + Sync>);

impl Wake for Owning {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn waker_is_dropped_without_the_lock() {
    on_each(|| async {
        let (mut acceptor, _) = acceptor();
        let _other = acceptor.end_on(std::future::pending(), SERVE, LONG);
        let owned = Mutex::new(Box::pin(acceptor.end_on(std::future::pending(), SERVE, LONG)));
        acceptor.control().stop();
        assert!(acceptor.accept().await.unwrap().is_none());
        let mut poll =
            |waker: &Waker| Pin::new(&mut acceptor).poll_next(&mut Context::from_waker(waker)).is_pending();
        assert!(poll(&Waker::from(Arc::new(Owning(Box::new(owned))))));
        // The stream holds the last handle of the waker before, and with it the future.
        assert!(poll(Waker::noop()));
    });
}

#[test]
fn ended_stream_keeps_no_waker() {
    on_each(|| async {
        let (mut acceptor, _) = acceptor();
        acceptor.control().stop();
        let kept = Arc::new(Owning(Box::new(())));
        let waker = Waker::from(Arc::clone(&kept));
        while Pin::new(&mut acceptor).poll_next(&mut Context::from_waker(&waker)).is_pending() {
            tokio::task::yield_now().await;
        }
        let accepted = acceptor.accept().await.unwrap();
        assert!(accepted.is_none());
        drop(waker);
        assert_eq!(Arc::strong_count(&kept), 1);
    });
}

#[test]
fn stream_ends_when_the_end_is_not_waited_for() {
    on_each(|| async {
        let (mut acceptor, address) = acceptor();
        let _client = TcpStream::connect(address).unwrap();
        let _silent = next(&mut acceptor).await.unwrap();
        let ended = acceptor.end_on(async {}, SERVE, LONG);
        acceptor.control().stop();
        assert!(tokio::select! { biased; _ = next(&mut acceptor) => false, () = async {} => true });
        drop(ended);
        assert!(next(&mut acceptor).await.is_none());
    });
}

#[test]
fn signal_after_a_stop_refuses_nothing() {
    on_each(|| async {
        let (listener, address) = listen();
        let copy = listener.try_clone().unwrap();
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let control = acceptor.control();
        let _clients = connect_many(address, 2);
        let mut ended = pin!(acceptor.end_on(async {}, SERVE, LONG));
        control.stop();
        assert!(!is_over(ended.as_mut()).await, "the acceptor has not ended");
        let (next, ()) = tokio::join!(next(&mut acceptor), ended);
        assert!(next.is_none());
        assert_eq!((control.counters().refused, accept_queue(&copy).unwrap().depth), (0, 2));
        let _late = TcpStream::connect(address).unwrap();
        assert_eq!(accept_queue(&copy).unwrap().depth, 3, "the intake is open");
    });
}

/// What a socket-activated service does at a restart.
#[test]
fn kept_queue_waits_for_the_next_owner() {
    on_each(|| async {
        let (listener, address) = listen();
        let held = listener.try_clone().unwrap();
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let control = acceptor.control();
        let mut first = TcpStream::connect(address).unwrap();
        let mut connection = next(&mut acceptor).await.unwrap();
        let _clients = connect_many(address, 2);
        let mut ended = pin!(acceptor.end_on(async {}, Pending::Keep, LONG));
        assert!(!is_over(ended.as_mut()).await);
        let accepting = tokio::spawn(async move { next(&mut acceptor).await.is_none() });
        while !control.state().is_terminal() {
            assert!(!is_over(ended.as_mut()).await, "the first is silent");
            tokio::task::yield_now().await;
        }
        first.write_all(b"request").unwrap();
        assert_eq!(connection.read(&mut [0; 9]).await.unwrap(), 7);
        ended.await;
        assert!(accepting.await.unwrap());
        assert_eq!((control.counters().refused, control.shutdown_report()), (0, None));
        assert_eq!(accept_queue(&held).unwrap().depth, 2);

        let mut successor = LevelTriggered::on(held).build_tokio().unwrap();
        let _late = TcpStream::connect(address).unwrap();
        for _ in 0..3 {
            let _connection = next(&mut successor).await.unwrap();
        }
    });
}

#[test]
fn acceptor_that_ends_otherwise_ends_the_service() {
    on_each(|| async {
        for drops in [false, true] {
            let (mut acceptor, _) = acceptor();
            let control = acceptor.control();
            let mut ended = pin!(acceptor.end_on(std::future::pending(), SERVE, LONG));
            assert!(!is_over(ended.as_mut()).await);
            if drops {
                drop(acceptor);
                ended.await;
            } else {
                control.stop();
                let (next, ()) = tokio::join!(next(&mut acceptor), ended);
                assert!(next.is_none());
            }
        }
    });
}
