//! Runs schedules: unattended, until it is told to stop.
//!
//! [`run`] is the daemon; [`once`] runs schedules one time each. Both send their jobs down the same way as everybody, and
//! hold the store while they do: no schedule runs twice at once.
//!
//! - `agenda`: the schedules, each with its [`Timetable`](crate::schedule::Timetable), settings and job under way;
//! - `clock`: wakes the daemon every second, to look at the timetables;
//! - `control`: the socket in the store, by which others ask a running daemon;
//! - `status`: what the daemon is about, for the socket and for a file that monitoring reads;
//! - `service`: what systemd is told.
//!
//! Nothing in the loop waits for disk, catalog or network: whoever does has a task of its own. So the watchdog, which
//! is fed by the loop, tells whether the daemon is alive.

mod agenda;
mod clock;
mod control;
mod notes;
mod once;
mod posted;
mod service;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use rand::rngs::SmallRng;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::api::{
    self, Access, Api, Census, Desk, Health, Offer, Rules, Server, Tls, UploadRules, Uploads, Way,
    Wish,
};
use crate::catalog::{self, Catalog};
use crate::config::{Config, Loaded};
use crate::job::{Engine, Posts, Stop};
use crate::notify::{Callbacks, Notifier};
use crate::rendition::Renditions;
use crate::step;
use crate::telemetry;
use agenda::{Agenda, Ended};
use clock::Clock;
use control::Control;
use notes::Notes;
use service::Service;
use status::Board;

pub use control::{Client, ControlError};
pub use once::{Once, Ran, once};
pub use status::{socket, state_file};

/// How often the state file is written while nothing but progress changes.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);

/// No stop takes longer, whatever `daemon.stop_timeout` says.
const LONGEST_STOP: Duration = Duration::from_secs(24 * 3600);

/// How long after it was cut short a job may take to record what it has.
const RECORDING: Duration = Duration::from_secs(20);

/// How long at most events are delivered that wait when all else is done.
const TELLING: Duration = Duration::from_secs(10);

/// How long, at least, what was asked may take to be answered once the jobs are over.
const ANSWERING: Duration = Duration::from_secs(1);

/// Runs the schedules of `loaded` until SIGTERM or SIGINT. At SIGHUP, `load` reads the settings anew.
///
/// # Errors
///
/// When it cannot start: a setting, the store, the catalog, or the socket. What goes wrong later is logged, unless no job
/// can be run any more.
pub async fn run(
    loaded: Loaded,
    load: impl Fn() -> anyhow::Result<Loaded>,
    log: &telemetry::Guard,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    // Either may have to wait for the catalog.
    let mut daemon = tokio::select! {
        daemon = Daemon::start(loaded) => daemon?,
        () = signals.stop.recv() => return Ok(()),
    };
    let (ask, wishes) = mpsc::channel(16);
    let doors = daemon.open(ask).await?;
    let clock = Clock::start().await?;
    daemon.show(true);
    daemon.service.ready(&daemon.agenda.in_words());
    tracing::info!(
        "{} schedules, {}",
        daemon.agenda.len(),
        daemon.agenda.in_words()
    );
    let watched = daemon.watch(clock, wishes, &mut signals, load, log).await;
    doors.stop();
    daemon.end(doors, &mut signals).await;
    watched
}

/// Says what is wrong with schedules and receivers, as far as it can be told without running them.
///
/// # Errors
///
/// An unknown kind, a source or a report that cannot be used, a client that cannot be set up.
pub fn check(loaded: &Loaded) -> anyhow::Result<()> {
    loaded.config.api.tls.read()?;
    Rules::new(&loaded.config.api)?;
    Agenda::new(loaded, None)?;
    Ok(loaded.notify().map(drop)?)
}

struct Daemon {
    engine: Arc<Engine>,
    agenda: Agenda,
    posts: Posts,
    /// Ends once all posted jobs that run are over.
    posted: JoinHandle<()>,
    renditions: Renditions,
    steps: step::Registry,
    jobs: JoinSet<Ended>,
    stop: Stop,
    notes: Notes,
    notifier: Notifier,
    /// Tells clients of the end of their jobs.
    callbacks: Callbacks,
    service: Service,
    board: Board,
    access: Access,
    tls: Option<Tls>,
    uploads: Uploads,
    written: Option<Instant>,
    loaded: Loaded,
    rng: SmallRng,
}

/// Where others come in.
struct Doors {
    control: Control,
    network: Option<Server>,
    /// What they read.
    catalog: Arc<dyn Catalog>,
}

impl Doors {
    /// Lets nobody in any more.
    fn stop(&self) {
        self.control.stop();
        self.network.iter().for_each(Server::stop);
    }

    /// Answers what was asked, until `by`.
    async fn close(self, by: Instant) {
        self.control.close(by).await;
        if let Some(network) = self.network {
            network.close(by).await;
        }
        self.catalog.close().await;
    }
}

impl Daemon {
    /// Takes the store, and up what an earlier process left: pauses, times, and jobs that were interrupted.
    async fn start(loaded: Loaded) -> anyhow::Result<Self> {
        let mut agenda = Agenda::new(&loaded, None)?;
        let notify = loaded.notify()?;
        let engine = Arc::new(Engine::start(loaded.config.setup()).await?);
        let catalog = engine.catalog();
        let notifier = Notifier::start(notify, catalog.clone(), true).await?;
        agenda.remember(catalog.schedules().await?, Utc::now());
        agenda.recall(&**catalog).await?;
        let stop = Stop::default();
        let renditions = renditions(&loaded.config)?;
        let folder = private(&loaded.config.storage.root, "steps");
        // What an earlier process left half done there is deleted.
        let steps = step::Registry::builtin(&loaded.config.steps, renditions.clone(), &folder);
        let settings = posted::settings(&loaded.config, agenda.common(), steps.clone())?;
        let (posts, posted) = Posts::start(engine.clone(), settings, stop.clone()).await?;
        let secret = loaded.config.api.callback_secret()?;
        let callbacks = {
            let posts = posts.clone();
            Callbacks::start(catalog.clone(), move || posts.client(), secret)
        };
        Ok(Self {
            notes: Notes::new(catalog.clone()),
            notifier,
            callbacks,
            engine,
            agenda,
            posts,
            posted,
            renditions,
            steps,
            jobs: JoinSet::new(),
            stop,
            service: Service::from_env(),
            board: Board::new(&loaded.config.storage.root),
            access: Access::default(),
            tls: loaded.config.api.tls.read()?.map(Tls::new),
            uploads: Uploads::new(upload_rules(&loaded)),
            written: None,
            loaded,
            rng: rand::make_rng(),
        })
    }

    /// Has others come in by the socket, and where `api.listen` says.
    async fn open(&mut self, ask: mpsc::Sender<Wish>) -> anyhow::Result<Doors> {
        let config = &self.loaded.config;
        let settings = &config.api;
        self.access.set(Rules::new(settings)?);
        let catalog = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
        let keeper = self.engine.catalog();
        if settings.listen.is_some() {
            keeper.index_albums().await?;
        }
        let listener = match settings.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let address = listener.as_ref().map(|(_, address)| *address);
        self.board.listens(address);
        let board = self.board.clone();
        let max_body = usize::try_from(settings.max_body.as_u64()).unwrap_or(usize::MAX);
        let api = Api {
            desk: Desk {
                status: Arc::new(move || board.status()),
                ask,
            },
            access: self.access.clone(),
            catalog: catalog.clone(),
            keeper: keeper.clone(),
            store: self.engine.store().clone(),
            renditions: self.renditions.clone(),
            files: self.engine.files().clone(),
            uploads: self.uploads.clone(),
            health: Health::default(),
            census: {
                let engine = Arc::downgrade(&self.engine);
                Census(Arc::new(move || Some(engine.upgrade()?.census())))
            },
            metrics: settings.metrics,
            posts: self.posts.clone(),
            max_body,
            bodies: api::bodies(max_body),
            listeners: api::listeners(),
            look_ups: api::LookUps::default(),
            with_docs: settings.docs,
            events: self.notifier.live().clone(),
        };
        let network = listener.map(|(listener, address)| {
            let scheme = self.tls.as_ref().map_or("http", |_| "https");
            tracing::info!("the API is at {scheme}://{address}/api/v1");
            let offer = Offer {
                most: settings.max_connections.get(),
                tls: self.tls.clone(),
            };
            api.serve(listener, Way::Network, offer)
        });
        Ok(Doors {
            control: Control::listen(self.board.root(), &api)?,
            network,
            catalog,
        })
    }

    /// The loop, until the first signal that ends it.
    async fn watch(
        &mut self,
        mut clock: Clock,
        mut wishes: mpsc::Receiver<Wish>,
        signals: &mut Signals,
        load: impl Fn() -> anyhow::Result<Loaded>,
        log: &telemetry::Guard,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = signals.stop.recv() => return Ok(()),
                () = self.engine.broken() => anyhow::bail!(
                    "internal error: a task that all jobs need is gone, please report it; another start puts everything in order"
                ),
                _ = signals.hangup.recv() => self.reload(&load, log),
                () = self.service.feed() => {}
                Some(ended) = self.jobs.join_next_with_id() => {
                    self.note_end(ended);
                    self.show(true);
                }
                Some(wish) = wishes.recv() => {
                    let now = Utc::now();
                    wish.answer(|asked| self.agenda.obey(asked, now));
                    self.look();
                }
                () = clock.tick() => self.look(),
            }
        }
    }

    /// Looks at the timetables, and begins what is due.
    fn look(&mut self) {
        let due = self.agenda.due(Utc::now(), &mut self.rng);
        let changed = !due.is_empty();
        for name in due {
            self.agenda
                .begin(&name, &self.engine, &self.stop, &mut self.jobs);
        }
        for row in self.agenda.changed_rows() {
            self.notes.write(row);
        }
        self.show(changed);
        self.service.status(&self.agenda.in_words());
    }

    fn note_end(&mut self, ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        let over = self.agenda.end(ended);
        if let Some(end) = over.and_then(|over| over.unrecorded) {
            self.notes.end(end);
        }
        for row in self.agenda.changed_rows() {
            self.notes.write(row);
        }
    }

    /// Tells what it is about, to whoever looks.
    fn show(&mut self, changed: bool) {
        self.board.show(self.agenda.status(Utc::now()));
        if changed || self.written.is_none_or(|at| at.elapsed() >= WRITTEN_EVERY) {
            self.written = Some(Instant::now());
            self.board.write();
        }
    }

    /// Goes by the settings as they are now, unless they cannot be used.
    fn reload(&mut self, load: &impl Fn() -> anyhow::Result<Loaded>, log: &telemetry::Guard) {
        self.service.reloading();
        let reloaded = load().and_then(|loaded| {
            unchangeable(&self.loaded, &loaded)?;
            let settings = &loaded.config.api;
            let (rules, certificate) = (Rules::new(settings)?, settings.tls.read()?);
            let agenda = Agenda::new(&loaded, Some(&self.agenda))?;
            let posted = posted::settings(&loaded.config, agenda.common(), self.steps.clone())?;
            let (notify, secret) = (loaded.notify()?, settings.callback_secret()?);
            Ok((agenda, posted, rules, certificate, notify, secret, loaded))
        });
        match reloaded {
            Ok((agenda, posted, rules, certificate, notify, secret, loaded)) => {
                self.posts.set(posted);
                self.callbacks.sign_with(secret);
                self.notifier.replace(notify);
                log.set_level(&loaded.config.log.level);
                let concurrency = loaded.config.fetch.concurrency.get();
                self.engine.set_concurrency(concurrency);
                agenda.common().apply_bandwidth();
                self.access.set(rules);
                if let (Some(tls), Some(certificate)) = (&self.tls, certificate) {
                    tls.set(certificate);
                }
                self.uploads.set(upload_rules(&loaded));
                self.agenda.replace(agenda, &self.engine, Utc::now());
                self.loaded = loaded;
                tracing::info!("settings read again: {}", self.agenda.in_words());
            }
            Err(error) => {
                tracing::error!("the new settings are refused, the old ones stay: {error:#}");
            }
        }
        self.service.ready(&self.agenda.in_words());
        self.look();
    }

    /// Lets what is being fetched finish, records it, and leaves the rest to the next start. Ends at once at a second
    /// signal, whatever it waits for.
    async fn end(self, doors: Doors, signals: &mut Signals) {
        self.stop.leave.cancel();
        let (board, mut service) = (self.board.clone(), self.service.clone());
        service.stopping();
        // The clock has an end, and nobody waits longer.
        let patience = self.loaded.config.daemon.stop_timeout.min(LONGEST_STOP);
        let cut_at = Instant::now() + patience;
        let ended = tokio::time::timeout_at(cut_at + RECORDING, self.wind_up(doors, cut_at));
        tokio::pin!(ended);
        loop {
            tokio::select! {
                ended = &mut ended => {
                    if ended.is_err() {
                        tracing::error!("not all was recorded in time; the next start puts everything in order");
                    }
                    break;
                }
                () = signals.stop.recv() => std::process::exit(i32::from(TERMINATED)),
                () = service.feed() => {}
            }
        }
        board.end();
        tracing::info!("stopped");
    }

    async fn wind_up(mut self, doors: Doors, cut_at: Instant) {
        if !self.jobs.is_empty() {
            tracing::info!(
                "stopping: {} jobs have {} to finish what they are fetching (once more: at once)",
                self.jobs.len(),
                humantime::format_duration(self.loaded.config.daemon.stop_timeout)
            );
        }
        while !self.jobs.is_empty() || !self.posted.is_finished() {
            tokio::select! {
                Some(ended) = self.jobs.join_next_with_id() => self.note_end(ended),
                _ = &mut self.posted, if !self.posted.is_finished() => {}
                () = tokio::time::sleep_until(cut_at), if !self.stop.cut.is_cancelled() => {
                    tracing::warn!("what is still being fetched is left to the next start");
                    self.stop.cut.cancel();
                }
            }
        }
        self.callbacks.stop().await;
        drop(self.posts);
        self.notifier.live().end();
        doors.close(cut_at.max(Instant::now() + ANSWERING)).await;
        self.board.show(self.agenda.status(Utc::now()));
        self.notes.close().await;
        // Jobs that were left are interrupted ones from here on.
        if let Err(error) = self.engine.catalog().abandon_jobs(Utc::now()).await {
            tracing::error!("cannot record which jobs are interrupted: {error:#}");
        }
        self.notifier.stop(TELLING).await;
        if let Some(engine) = Arc::into_inner(self.engine) {
            engine.shut_down().await;
        }
    }
}

/// The exit code of a second signal: 128 and SIGTERM's number.
const TERMINATED: u8 = 143;

/// By which rules clients may send files.
fn upload_rules(loaded: &Loaded) -> UploadRules {
    let config = &loaded.config;
    UploadRules::new(&config.image, &config.naming, config.api.max_upload)
}

/// What a running daemon cannot change.
fn unchangeable(old: &Loaded, new: &Loaded) -> anyhow::Result<()> {
    let (old_config, new_config) = (&old.config, &new.config);
    let (old_api, new_api) = (&old_config.api, &new_config.api);
    let is_same = [
        ("[storage]", old_config.storage == new_config.storage),
        ("[catalog]", old_config.catalog == new_config.catalog),
        ("api.listen", old_api.listen == new_api.listen),
        ("api.max_body", old_api.max_body == new_api.max_body),
        (
            "api.max_connections",
            old_api.max_connections == new_api.max_connections,
        ),
        ("api.docs", old_api.docs == new_api.docs),
        ("api.metrics", old_api.metrics == new_api.metrics),
        ("[api.tls]", old_api.tls.is_on() == new_api.tls.is_on()),
    ];
    for (what, is_same) in is_same {
        anyhow::ensure!(
            is_same,
            "`{what}` differs, which takes a restart of the daemon"
        );
    }
    let (old_log, new_log) = (&old_config.log, &new_config.log);
    if (old_log.format, &old_log.dir, old_log.keep) != (new_log.format, &new_log.dir, new_log.keep)
    {
        tracing::warn!(
            "`[log]` differs in more than its level, which takes a restart of the daemon"
        );
    }
    if old_config.fetch.body_memory != new_config.fetch.body_memory {
        tracing::warn!("`fetch.body_memory` differs, which takes a restart of the daemon");
    }
    if old_config.renditions != new_config.renditions
        || old_config.steps.workers != new_config.steps.workers
    {
        tracing::warn!(
            "`[renditions]` or `steps.workers` differs, which takes a restart of the daemon"
        );
    }
    Ok(())
}

/// Where smaller pictures are kept.
fn renditions(config: &Config) -> anyhow::Result<Renditions> {
    let folder = private(&config.storage.root, "renditions");
    Renditions::new(
        &folder,
        &config.renditions,
        &config.image,
        config.steps.workers,
    )
    .with_context(|| format!("cannot use the folder `{}`", folder.display()))
}

async fn listen(
    address: SocketAddr,
) -> anyhow::Result<(impl axum::serve::Listener<Addr = SocketAddr>, SocketAddr)> {
    api::bind(address)
        .await
        .with_context(|| format!("cannot listen on `{address}`, which `api.listen` names"))
}

struct Signals {
    stop: StopSignals,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            stop: StopSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Waits for one. Cancel safe.
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Where things of the daemon stand below the store's root.
fn private(root: &std::path::Path, name: &str) -> PathBuf {
    root.join(".gannet").join(name)
}
