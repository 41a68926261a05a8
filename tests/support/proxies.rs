//! Real proxies on free ports of loopback: tinyproxy for HTTP, microsocks for SOCKS 5.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A proxy that runs. Killed when dropped.
pub struct RealProxy {
    address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl RealProxy {
    /// `None` where there is no tinyproxy.
    pub fn tinyproxy() -> Option<Self> {
        Self::start("tinyproxy", |command, folder, port| {
            let file = folder.path().join("tinyproxy.conf");
            let text = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nLogLevel Critical\n"
            );
            std::fs::write(&file, text).unwrap();
            command.arg("-d").arg("-c").arg(file);
        })
    }

    /// One that wants this user name and password; `None` where there is no microsocks.
    pub fn microsocks(user: &str, password: &str) -> Option<Self> {
        Self::start("microsocks", |command, _, port| {
            command.args([
                "-i",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-u",
                user,
                "-P",
                password,
            ]);
        })
    }

    fn start(program: &str, arrange: impl Fn(&mut Command, &TempDir, u16)) -> Option<Self> {
        // Between finding a free port and listening on it somebody else may take it: then another one.
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let folder = TempDir::with_prefix("gannet-proxy-").unwrap();
            let mut command = Command::new(program);
            arrange(&mut command, &folder, address.port());
            let started = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(process) = started else {
                let required =
                    std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
                assert!(
                    !required,
                    "GANNET_REQUIRE_SERVICES=1, and there is no {program}"
                );
                eprintln!("skipped: there is no {program}");
                return None;
            };
            let mut proxy = Self {
                address,
                process,
                _folder: folder,
            };
            if proxy.listens() {
                return Some(proxy);
            }
        }
        panic!("{program} does not start");
    }

    /// Waits until it does, or has ended.
    fn listens(&mut self) -> bool {
        for _ in 0..500 {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            #[expect(clippy::disallowed_methods, reason = "a proxy of a test, on loopback")]
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        false
    }

    /// Its URL with this scheme, and these credentials where they end with `@`.
    pub fn url(&self, scheme: &str, credentials: &str) -> String {
        format!("{scheme}://{credentials}{}", self.address)
    }
}

impl Drop for RealProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
