//! A Service of Kubernetes: a new connection goes to one of its endpoints in turn; one that is there goes on, whatever becomes of its endpoint.

use std::sync::{Arc, Mutex};

use fte_testkit::Client;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct Endpoints {
    pub(crate) address: String,
    addresses: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Endpoints {
    /// In front of nobody yet.
    pub(crate) async fn none() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let addresses = Arc::<Mutex<Vec<String>>>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&addresses)));
        Self { address, addresses, accepting }
    }

    /// Who is ready gets connections.
    pub(crate) fn add(&self, api: &Client) {
        self.addresses.lock().unwrap().push(of(api));
    }

    /// Who ends gets no more of them.
    pub(crate) fn remove(&self, api: &Client) {
        self.addresses.lock().unwrap().retain(|address| *address != of(api));
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn of(api: &Client) -> String {
    api.base().trim_start_matches("http://").to_owned()
}

async fn accept(listener: TcpListener, addresses: Arc<Mutex<Vec<String>>>) {
    for turn in 0.. {
        let (mut from, _) = listener.accept().await.unwrap();
        let address = {
            let addresses = addresses.lock().unwrap();
            addresses.get(turn % addresses.len().max(1)).cloned()
        };
        tokio::spawn(async move {
            let Some(address) = address else { return };
            let Ok(mut to) = TcpStream::connect(address).await else { return };
            // As the kernel would: nothing waits to be more.
            from.set_nodelay(true).unwrap();
            to.set_nodelay(true).unwrap();
            drop(copy_bidirectional(&mut from, &mut to).await);
        });
    }
}
