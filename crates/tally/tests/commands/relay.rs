//! A way to a broker that stays where it is when the broker is killed and started again on another port, and that can be cut.

use std::io::copy;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;

/// Listens, and passes on to the broker that it is pointed at.
pub(crate) struct Relay {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    target: Option<String>,
    open: Vec<TcpStream>,
}

impl Relay {
    pub(crate) fn new() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // It ends with the process.
        spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                connect(&shared, client);
            }
        });
        Relay { address, state }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Passes on to this address from now on.
    pub(crate) fn point_at(&self, target: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.target = Some(target.to_owned());
    }

    /// Cuts what is open.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in state.open.drain(..) {
            let _gone = stream.shutdown(Shutdown::Both).is_err();
        }
    }
}

/// Passes both ways until one side is gone.
fn connect(shared: &Mutex<State>, client: TcpStream) {
    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let server = state.target.as_ref().map(TcpStream::connect);
    let Some(Ok(server)) = server else {
        // Nobody is there: it is closed at once.
        return;
    };
    let twin = |stream: &TcpStream| stream.try_clone().expect("a handle");
    state.open.extend([twin(&client), twin(&server)]);
    for (mut from, mut to) in [(twin(&client), twin(&server)), (server, client)] {
        spawn(move || {
            let _cut = copy(&mut from, &mut to).is_err();
            let _gone = to.shutdown(Shutdown::Both).is_err();
            let _gone = from.shutdown(Shutdown::Both).is_err();
        });
    }
}
