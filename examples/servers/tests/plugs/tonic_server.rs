//! tonic's server with an acceptor, and its client.

use std::time::Duration;

use epoll_acceptor::{Gate, LevelTriggered, Pending, Refusal};
use tokio::sync::oneshot;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{LONG, listen, runtime, wait_until_stopped};

async fn ask(client: &mut HealthClient<Channel>) -> ServingStatus {
    client.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner().status()
}

#[test]
fn calls_are_answered_to_the_end() {
    runtime().block_on(async {
        let (listener, address) = listen();
        let gate = Gate::new(20);
        let acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio().unwrap();
        let control = acceptor.control();
        let (terminate, terminated) = oneshot::channel::<()>();
        let ended = acceptor.end_on(async { drop(terminated.await) }, Pending::Serve(Refusal::Close), LONG);
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder().add_service(health).serve_with_incoming_shutdown(acceptor, ended);
        let server = tokio::spawn(server);

        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            assert_eq!(ask(&mut client).await, ServingStatus::Serving);
            clients.push(client);
        }
        assert_eq!((control.counters().delivered, gate.in_use()), (10, 10));
        // Connected, and silent until the acceptor has stopped. The last one keeps the server from saying GOAWAY, which a
        // client answers by asking elsewhere.
        let mut silent: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let last = silent.pop();
        drop(terminate);
        tokio::task::spawn_blocking({
            let control = control.clone();
            move || wait_until_stopped(&control)
        })
        .await
        .unwrap();
        assert_eq!(control.counters().delivered, 20);
        for stream in silent {
            stream.set_nonblocking(true).unwrap();
            let mut stream = Some(tokio::net::TcpStream::from_std(stream).unwrap());
            let connector = tower::service_fn(move |_| {
                let stream = stream.take().expect("one connection");
                async { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream)) }
            });
            let channel = endpoint.connect_with_connector(connector).await.unwrap();
            assert_eq!(ask(&mut HealthClient::new(channel)).await, ServingStatus::Serving);
        }
        drop((clients, last));
        tokio::time::timeout(LONG, server).await.expect("the server ends").unwrap().unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(30), gate.idle()).await.is_ok());
    });
}

#[test]
fn connect_info_is_that_of_the_stream() {
    runtime().block_on(async {
        let (listener, address) = listen();
        let mut acceptor = LevelTriggered::on(listener).build_tokio().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let connection = acceptor.accept().await.unwrap().unwrap();
        let info: TcpConnectInfo = connection.connect_info();
        assert_eq!(info.remote_addr(), Some(client.local_addr().unwrap()));
        assert_eq!(info.local_addr(), Some(address));
    });
}
