//! Closing a connection moves it.

use std::io::Write as _;
use std::net::TcpStream;

use epoll_acceptor::Connection;

fn serve(mut connection: Connection<TcpStream>) {
    drop(connection);
    connection.write_all(b"hello").unwrap();
}

fn main() {}
