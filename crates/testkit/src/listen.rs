//! Listening again where somebody listened before.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::eventually;

/// Listens at this address. One that is just given up may be in use for a moment more: a program that another test starts has a copy of every open
/// socket until it is the program.
pub async fn listen(address: impl Into<SocketAddr>) -> TcpListener {
    let address = address.into();
    let bound = eventually(|| async {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            bound => Ok(bound),
        }
    });
    bound.await.unwrap_or_else(|error| panic!("cannot listen at {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_in_use_is_waited_for() {
        let before = listen(([127, 0, 0, 1], 0)).await;
        let address = before.local_addr().unwrap();
        let again = tokio::spawn(listen(address));
        tokio::task::yield_now().await;
        assert!(!again.is_finished(), "it is taken");
        drop(before);
        assert_eq!(again.await.unwrap().local_addr().unwrap(), address);
    }
}
