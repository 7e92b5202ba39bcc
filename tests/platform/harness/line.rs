//! A way to the database that a test may disturb.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use super::Database;

/// Listens in front of a database and hands each connection, from the client and to the server, to `pass`. Returns the URL
/// behind it.
pub async fn in_front_of<F, Passed>(database: &Database, pass: F) -> String
where
    F: Fn(TcpStream, TcpStream) -> Passed + Send + Sync + 'static,
    Passed: Future<Output = ()> + Send + 'static,
{
    let (account, rest) = database.url.split_once('@').expect("a URL with a user");
    let (server, name) = rest.split_once('/').expect("a URL with a database");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("{account}@{}/{name}", listener.local_addr().expect("its address"));
    let (server, pass) = (server.to_owned(), Arc::new(pass));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.expect("the database listens");
            tokio::spawn(pass(client, server));
        }
    });
    url
}
