//! A proxy without a data plane: the admin servers, workers that are tasks, a store in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::drains::StoreFuture;
use crate::admin::*;
use crate::drain::progress::State;
use crate::routing::{Backend, BackendAddress, BackendId, Refusal, Table};
use crate::source::history::History;
use crate::source::{Origin, Published};
use crate::telemetry::counters::Counters;
use crate::telemetry::metrics::{Metrics, MetricsSources};
use crate::worker::command::{Command, DrainProgress, DrainRow, DrainRows, LinkView, SessionView};

pub(crate) fn id(text: &str) -> BackendId {
    let (service, name) = text.split_once('/').unwrap();
    BackendId { service: service.into(), name: name.into() }
}

pub(crate) fn table(revision: u64) -> Table {
    let backend = |name: &str| {
        let id = id(name);
        let address = BackendAddress::Tcp("10.0.0.5:7100".into());
        let backend = Backend {
            id: id.clone(),
            address,
            version: "1.4".into(),
            weight: 100,
            zone: None,
            capacity: None,
        };
        (id, Arc::new(backend))
    };
    Table {
        ejections: Default::default(),
        revision,
        applied_at: SystemTime::now(),
        services: BTreeMap::new(),
        routes: BTreeMap::new(),
        backends: [backend("arena/a"), backend("arena/b")].into(),
        drains: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        hooks: BTreeMap::new(),
    }
}

pub(crate) fn published(table: Table) -> Published {
    Published {
        documents: Arc::default(),
        table: Arc::new(table),
        origin: Origin::Source,
        connected: true,
        last_contact: None,
        source_error: None,
        refused: Arc::new([Refusal {
            key: "backends/arena/x".into(),
            field: "weight".into(),
            value: "-1".into(),
            expected: "0 to 1000000".into(),
            since: 16,
            last_good: true,
        }]),
        warnings: Arc::new([]),
        held: Arc::new([]),
        memory: Arc::default(),
    }
}

fn session(worker: u16, number: usize) -> SessionView {
    SessionView {
        mirror_of: None,
        group: None,
        id: format!("{number:032x}"),
        worker,
        service: "arena".into(),
        route: "public".into(),
        client: "192.0.2.1:5000".into(),
        backend: Some("arena/a".into()),
        phase: "active".into(),
        epoch: 1,
        client_seq: 4,
        server_seq: 5,
        kept_bytes: 6,
        state_bytes: 0,
        age_s: 7,
    }
}

fn link(worker: u16, backend: &str, draining: &[String]) -> LinkView {
    LinkView {
        capacity_told: None,
        load_permille: None,
        at_bound: None,
        slow_start_percent: None,
        worker,
        backend: backend.into(),
        link: if worker == 0 { "up" } else { "connecting" }.into(),
        instance: None,
        backend_version: (worker == 0).then(|| "1.4.2".into()),
        sessions: 2,
        draining: draining.to_vec(),
        left: u64::from(!draining.is_empty()),
        last_error: None,
        drain: (!draining.is_empty()).then(|| progress(2)),
        attachments: (worker == 0 && !draining.is_empty()).then_some(4),
    }
}

pub(crate) fn progress(left: u64) -> DrainProgress {
    DrainProgress {
        state: State::Moving,
        reason: "deploy 1.5".into(),
        left,
        in_flight: 1,
        moved: 10,
        parked: 0,
        ended: 0,
        thawed: 0,
        homeless: 0,
        waits_for: None,
        running_ms: 3_400,
        remaining_ms: 56_600,
    }
}

/// What the workers were told to do, and how they behave.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) orders: Mutex<Vec<String>>,
    /// Each look at a draining arena/a finds one session fewer on each worker.
    pub(crate) moves: AtomicBool,
    moved: AtomicU64,
    /// Of the table by which the workers act.
    pub(crate) revision: AtomicU64,
}

/// A worker that answers everything; it has a link to arena/a, and one to arena/old, whose key is gone.
async fn worker(number: u16, mut commands: mpsc::Receiver<Command>, fleet: Arc<Fleet>) {
    let mut draining = vec!["backend".to_owned()];
    while let Some(command) = commands.recv().await {
        let order = |text: String| fleet.orders.lock().unwrap().push(format!("{number}: {text}"));
        match command {
            Command::Sessions { limit, answer } => {
                let _ = answer.send((0..limit.min(3)).map(|n| session(number, n)).collect());
            }
            Command::Links { answer } => {
                let mut link_a = link(number, "arena/a", &draining);
                if fleet.moves.load(Ordering::Relaxed) {
                    let moved = fleet.moved.fetch_add(1, Ordering::Relaxed);
                    link_a.sessions = link_a.sessions.saturating_sub(moved / 2);
                    link_a.attachments = link_a.attachments.map(|_| link_a.sessions);
                }
                let _ = answer.send(vec![link_a, link(number, "arena/old", &[])]);
            }
            Command::Drain { backend, deadline, reason, answer } => {
                order(format!("drain {backend} {deadline:?} {reason}"));
                draining.push("local".to_owned());
                let _ = answer.send(true);
            }
            Command::Acquaint { .. } => {}
            Command::Tallies { answer } => {
                let _ = answer.send(Vec::new());
            }
            Command::Undrain { backend, answer } => {
                order(format!("undrain {backend}"));
                let _ = answer.send(false);
            }
            Command::Drains { answer } => {
                let row =
                    |sessions| DrainRow { backend: "arena/a".into(), sessions, in_flight: 0, stuck: false };
                let rows = if draining.is_empty() { vec![] } else { vec![row(0)] };
                let _ = answer.send(DrainRows { revision: fleet.revision.load(Ordering::Relaxed), rows });
            }
            Command::AskCount { backend } => order(format!("count {backend}")),
            Command::CheckLink { .. }
            | Command::TableChanged
            | Command::Fitness(_)
            | Command::Shutdown { .. } => {}
        }
    }
}

#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) put: Mutex<Vec<DrainKey>>,
    pub(crate) failing: AtomicBool,
    pub(crate) deletes: AtomicU64,
    pub(crate) proxies: Mutex<Vec<ProxyDrains>>,
}

impl DrainStore for FakeStore {
    fn put(&self, drain: DrainKey) -> StoreFuture<'_, Written> {
        Box::pin(async move {
            if self.failing.load(Ordering::Relaxed) {
                return Err(StoreError("etcd is away".into()));
            }
            let key = format!("/holdfast/config/drains/{}", drain.backend);
            self.put.lock().unwrap().push(drain);
            Ok(Written { key, revision: 18 })
        })
    }

    fn delete(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)> {
        let first = self.deletes.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move { Ok((format!("/holdfast/config/drains/{backend}"), first)) })
    }

    fn eject(&self, ejection: EjectionKey) -> StoreFuture<'_, (String, Option<SystemTime>)> {
        let until = ejection.time.map(|time| SystemTime::UNIX_EPOCH + time);
        Box::pin(async move { Ok((format!("/holdfast/config/ejections/{}", ejection.backend), until)) })
    }

    fn uneject(&self, backend: BackendId) -> StoreFuture<'_, (String, bool)> {
        Box::pin(async move { Ok((format!("/holdfast/config/ejections/{backend}"), true)) })
    }

    fn proxies(&self) -> StoreFuture<'_, Vec<ProxyDrains>> {
        let proxies = self.proxies.lock().unwrap().clone();
        Box::pin(async move { Ok(proxies) })
    }
}

pub(crate) struct Proxy {
    pub(crate) state: Arc<AdminState>,
    pub(crate) publish: watch::Sender<Arc<Published>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) address: Address,
    pub(crate) stop: CancellationToken,
    pub(crate) server: tokio::task::JoinHandle<()>,
    /// Commands of a worker that never answers.
    pub(crate) hung: Option<mpsc::Receiver<Command>>,
    /// Where its history is.
    folder: tempfile::TempDir,
}

pub(crate) struct Options {
    pub(crate) surface: Surface,
    pub(crate) drains: DrainWriter,
    pub(crate) hooks: HookDesk,
    pub(crate) tables: TableWriter,
    pub(crate) hung_worker: bool,
    pub(crate) address: Address,
}

pub(crate) fn options(surface: Surface) -> Options {
    Options {
        surface,
        drains: DrainWriter::Files("/etc/holdfast/routing".into()),
        hooks: HookDesk::default(),
        tables: TableWriter::Files("/etc/holdfast/routing".into()),
        hung_worker: false,
        address: Address::Tcp("127.0.0.1:0".into()),
    }
}

fn history(folder: &tempfile::TempDir) -> History {
    History::new(folder.path(), "etcd:/holdfast".to_owned())
}

pub(crate) async fn proxy(options: Options) -> Proxy {
    let fleet = Arc::<Fleet>::default();
    let (publish, published) = watch::channel(Arc::new(published(table(17))));
    let counters: Vec<Arc<Counters>> = vec![Arc::default(), Arc::default()];
    counters.iter().for_each(|counters| counters.sessions.set(3));
    counters[0].links_up.set(1);
    let control = published.clone();
    let (_, fitness) = watch::channel(Arc::default());
    let metrics = Metrics::new(MetricsSources {
        workers: counters.clone(),
        spans: Arc::default(),
        control: Box::new(move || control_view(&control.borrow(), &Arc::default(), SystemTime::now())),
        started_at: SystemTime::now(),
        version: "1.2.3",
    });
    let folder = tempfile::tempdir().unwrap();
    let (first, commands) = mpsc::channel(8);
    tokio::spawn(worker(0, commands, Arc::clone(&fleet)));
    let (second, commands) = mpsc::channel(8);
    let hung = if options.hung_worker {
        Some(commands)
    } else {
        tokio::spawn(worker(1, commands, Arc::clone(&fleet)));
        None
    };
    let state = Arc::new(AdminState {
        fitness,
        proxy_id: "host-a".into(),
        version: "1.2.3",
        started_at: SystemTime::now(),
        workers: vec![first, second],
        counters,
        source: "etcd",
        published,
        listeners: vec![ListenerInfo { name: "game".into(), address: ([0, 0, 0, 0], 7000).into() }],
        metrics,
        drains: options.drains,
        hooks: options.hooks,
        tables: options.tables,
        history: history(&folder),
        registration: None,
        rollouts: tokio::sync::watch::channel(Arc::default()).1,
        listeners_bound: AtomicBool::new(true),
        stopping: AtomicBool::new(false),
    });
    let listener = Listener::bind(&options.address).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, options.surface, Arc::clone(&state), stop.clone()));
    Proxy { state, publish, fleet, address, stop, server, hung, folder }
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

impl Proxy {
    pub(crate) fn history(&self) -> History {
        history(&self.folder)
    }

    pub(crate) async fn send(&self, request: &str) -> Reply {
        match &self.address {
            Address::Tcp(address) => talk(TcpStream::connect(address).await.unwrap(), request).await,
            Address::Unix(path) => talk(UnixStream::connect(path).await.unwrap(), request).await,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}");
        self.send(&format!("{head}\r\n\r\n{body}")).await
    }
}
