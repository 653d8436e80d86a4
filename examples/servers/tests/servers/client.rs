//! Clients of each protocol, on blocking streams.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError, SignatureScheme, StreamOwned,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{LONG, Protocol};

/// The first part of a request, and the rest.
const REQUEST: [&[u8]; 2] = [b"GET / HT", b"TP/1.1\r\nhost: test\r\n\r\n"];

/// A client: connected, and silent until it asks.
pub(crate) enum Client {
    Silent(Protocol, TcpStream),
    Http(TcpStream),
    Https(Box<StreamOwned<ClientConnection, TcpStream>>),
    Grpc(HealthClient<Channel>),
}

/// A server's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Served,
    /// 503.
    Refused,
}

/// How often a call is sent that no server has processed. The client may still have the connection that has just ended.
const REPEATS: usize = 10;

impl Client {
    pub(crate) fn connect(protocol: Protocol, address: SocketAddr) -> Self {
        raise_descriptor_limit();
        let socket = TcpStream::connect(address).expect("the accept queue has room");
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self::Silent(protocol, socket)
    }

    /// Asks, and reads the answer.
    pub(crate) fn ask(&mut self) -> Answer {
        self.begin();
        self.finish()
    }

    /// Begins a request that `finish` ends. Of gRPC nothing is sent: a request has no middle there.
    pub(crate) fn begin(&mut self) {
        match self {
            Self::Silent(Protocol::Http, socket) => *self = Self::Http(socket.try_clone().unwrap()),
            Self::Silent(Protocol::Https, socket) => *self = Self::https(socket.try_clone().unwrap()),
            _ => {}
        }
        if let Some(stream) = self.stream() {
            // Fails if the server has refused the connection: the answer says so.
            let _ = stream.write_all(REQUEST[0]).and_then(|()| stream.flush());
        }
    }

    /// Ends the request that was begun, and reads the answer.
    pub(crate) fn finish(&mut self) -> Answer {
        if let Self::Silent(Protocol::Grpc, socket) = self {
            *self = Self::grpc(socket.try_clone().unwrap());
        }
        if let Self::Grpc(client) = self {
            let mut check = || {
                let check = client.check(HealthCheckRequest { service: String::new() });
                RUNTIME.block_on(async { timeout(LONG, check).await }).expect("a call is answered in time")
            };
            let mut attempts = (0..REPEATS).map(|_| check());
            let is_final = |answer: &Result<_, Status>| !answer.as_ref().is_err_and(has_crossed_goaway);
            let answer = attempts
                .find(is_final)
                .expect("a call is processed")
                .expect("a call is answered")
                .into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
            return Answer::Served;
        }
        if let Some(stream) = self.stream() {
            let _ = stream.write_all(REQUEST[1]).and_then(|()| stream.flush());
        }
        self.answer()
    }

    /// Reads the answer to a request of HTTP, also one that was not asked for.
    pub(crate) fn answer(&mut self) -> Answer {
        let stream = self.stream().expect("a client of HTTP");
        let (mut text, mut buffer) = (Vec::new(), [0; 512]);
        while !text.ends_with(b"hello\n") && !text.ends_with(b"content-length: 0\r\n\r\n") {
            let read = stream.read(&mut buffer);
            let length = read.unwrap_or_else(|error| panic!("{error} after {}", text.escape_ascii()));
            assert_ne!(length, 0, "closed after {}", text.escape_ascii());
            text.extend_from_slice(&buffer[..length]);
        }
        match &text[..13] {
            b"HTTP/1.1 200 " => Answer::Served,
            b"HTTP/1.1 503 " => Answer::Refused,
            _ => panic!("{}", text.escape_ascii()),
        }
    }

    /// Waits until the server closes the connection, which must not be a reset.
    pub(crate) fn await_close(&mut self) {
        if let Some(stream) = self.stream() {
            assert_eq!(stream.read(&mut [0]).expect("closed, not reset"), 0);
        }
    }

    /// Closes a silent client by a reset.
    pub(crate) fn reset(self) {
        let Self::Silent(_, socket) = self else { panic!("it is not silent") };
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Returns the stream of a client of HTTP.
    fn stream(&mut self) -> Option<&mut dyn Stream> {
        match self {
            Self::Silent(Protocol::Grpc, _) | Self::Grpc(_) => None,
            Self::Silent(_, stream) | Self::Http(stream) => Some(stream),
            Self::Https(stream) => Some(stream),
        }
    }

    fn https(socket: TcpStream) -> Self {
        static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
            let builder =
                ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyServer));
            Arc::new(builder.with_no_client_auth())
        });
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&CONFIG), name).unwrap();
        Self::Https(Box::new(StreamOwned::new(connection, socket)))
    }

    /// After a GOAWAY it connects again.
    fn grpc(socket: TcpStream) -> Self {
        let address = socket.peer_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = RUNTIME.block_on(async {
            let mut first = Some(tokio::net::TcpStream::from_std(socket).unwrap());
            let connector = tower::service_fn(move |_| {
                let first = first.take();
                async move {
                    match first {
                        Some(socket) => Ok(TokioIo::new(socket)),
                        None => tokio::net::TcpStream::connect(address).await.map(TokioIo::new),
                    }
                }
            });
            endpoint.connect_with_connector(connector).await
        });
        Self::Grpc(HealthClient::new(channel.expect("a connection")))
    }
}

/// Returns whether a call was not processed because the server said GOAWAY meanwhile. A client may send it again (RFC 9113,
/// 6.8), and most clients of gRPC do. tonic's reports it in these ways, and a reset in another.
fn has_crossed_goaway(status: &Status) -> bool {
    let mut cause: Option<&dyn Error> = Some(status);
    while let Some(error) = cause {
        let (io, h2) = (error.downcast_ref::<io::Error>(), error.downcast_ref::<h2::Error>());
        if error.downcast_ref().is_some_and(hyper::Error::is_canceled)
            || io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            || h2.is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The runtime of the clients of gRPC.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// Trusts any certificate: each server makes one of its own.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Hundreds of clients per test, and concurrent tests, exceed the usual soft limit.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the hard limit is allowed");
    });
}
