//! Delivers events to whoever wants them: at least once, in order, to each receiver for itself.
//!
//! The catalog writes events into its outbox, in the transaction that makes them true. [`Notifier`] has a task for each
//! receiver that reads the outbox, delivers ([`Receiver`] says how), and notes how far the receiver is; what all have
//! leaves the outbox. So a receiver that is away holds up neither jobs nor other receivers, and what it missed waits for
//! it in the catalog, within the limits of [`Settings`], also over a restart.
//!
//! - `settings`: `[events]` and `[[notify]]`;
//! - `told`: an event as JSON, as a sentence, by a template;
//! - `delivery`: what all receivers have in common: order, attempts, waits;
//! - `callback`: clients that want to know of the end of one job;
//! - `webhook`, `mqtt`, `mail`: the ways; `line`: connections of the last two;
//! - `live`: those who listen to the daemon.
//!
//! A new way is a file beside these, a variant of [`Kind`] with its keys in `settings`, and a line in `Plan::way`.

mod callback;
mod delivery;
mod line;
mod live;
mod mail;
mod mqtt;
mod settings;
mod told;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, CatalogError, DeadLetter};
use crate::clock;
use crate::fetch::{self, Client, Hosts};
use crate::local_path::LocalPath;
use crate::metrics::METRICS;
use crate::target::describe;
use delivery::{Deliver, Delivery};
use line::Dial;

pub use callback::Callbacks;
pub use live::{Heard, Listening, Live};
pub use settings::{
    Format, Kind, Mail, MailTls, Mqtt, MqttVersion, Receiver, Settings, Webhook, Written,
};
pub use told::{Template, Told};

/// How often the outbox is held against its limits.
const ROUND: Duration = Duration::from_secs(5);

/// How long deliveries under way may take when receivers change.
const CHANGE: Duration = Duration::from_secs(3);

/// Receivers, and what it takes to reach them.
#[derive(Debug, Clone)]
pub struct Plan {
    settings: Settings,
    receivers: Vec<Planned>,
}

/// A receiver, and what it takes to reach it.
#[derive(Debug, Clone)]
struct Planned {
    receiver: Receiver,
    client: Arc<Client>,
    /// For connections of other protocols than HTTP, those of them that are encrypted.
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// What is wrong with a receiver.
#[derive(Debug, thiserror::Error)]
#[error("receiver `{name}`: {problem}")]
pub struct PlanError {
    /// The receiver.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

impl Plan {
    /// What it takes to reach `receivers`: as `[fetch]` says, but that whoever writes the settings may mean any network.
    ///
    /// # Errors
    ///
    /// When the certificates of a receiver cannot be used.
    pub fn new(
        receivers: &[Receiver],
        settings: &Settings,
        fetch: &fetch::Settings,
    ) -> Result<Self, PlanError> {
        let mut fetch = fetch.clone();
        fetch.private_networks |= settings.private_networks;
        // Cookies and credentials for targets are not sent to receivers.
        (fetch.cookies_file, fetch.netrc_file) = (None, None);
        let mut planned = Vec::with_capacity(receivers.len());
        let mut common: Option<Arc<Client>> = None;
        for receiver in receivers {
            let wrong = |problem| PlanError {
                name: receiver.name.clone(),
                problem,
            };
            let make = |fetch: &fetch::Settings| {
                let client = Client::new(fetch, &Hosts::default());
                client
                    .map(Arc::new)
                    .map_err(|error| wrong(describe(&error)))
            };
            let client = match (&receiver.ca_file, &common) {
                (Some(file), _) => {
                    line::certificates(file).map_err(wrong)?;
                    let mut own = fetch.clone();
                    own.ca_files.push(file.clone());
                    make(&own)?
                }
                (None, Some(client)) => client.clone(),
                (None, None) => common.insert(make(&fetch)?).clone(),
            };
            let tls = match &receiver.kind {
                Kind::Mqtt(Mqtt { is_tls: true, .. }) | Kind::Mail(_) => {
                    let files = client.settings().ca_files.iter();
                    Some(line::tls(files.map(LocalPath::as_path)).map_err(wrong)?)
                }
                _ => None,
            };
            planned.push(Planned {
                receiver: receiver.clone(),
                client,
                tls: tls.map(Arc::new),
            });
        }
        Ok(Self {
            settings: settings.clone(),
            receivers: planned,
        })
    }

    /// How a receiver gets its events. `stays`: whether the process is one that stays.
    fn way(
        &self,
        planned: &Planned,
        catalog: Option<&Arc<dyn Catalog>>,
        stays: bool,
    ) -> Box<dyn Deliver> {
        let Planned {
            receiver,
            client,
            tls,
        } = planned;
        let timeout = receiver.timeout;
        let dial = |host: &str, port, is_tls: bool| Dial {
            client: client.clone(),
            host: host.to_owned(),
            port,
            tls: tls.clone().filter(|_| is_tls),
        };
        match &receiver.kind {
            Kind::Webhook(webhook) => Box::new(webhook::Posting {
                client: client.clone(),
                to: webhook.clone(),
                timeout,
            }),
            Kind::Mqtt(mqtt) => Box::new(mqtt::Publishing {
                to: mqtt.clone(),
                dial: dial(&mqtt.host, mqtt.port, mqtt.is_tls),
                timeout,
                is_present: stays,
                session: None,
                suspect: None,
            }),
            Kind::Mail(mail) => Box::new(mail::Mailing {
                to: mail.clone(),
                dial: dial(&mail.host, mail.port, mail.tls == MailTls::Tls),
                timeout,
                starttls: tls.clone().filter(|_| mail.tls == MailTls::StartTls),
                catalog: catalog.cloned(),
            }),
        }
    }

    /// Sends a receiver an event that is only a test, once, whatever it wants.
    ///
    /// # Errors
    ///
    /// Why it did not take it, in words.
    pub async fn test(&self, name: &str) -> Result<(), String> {
        let planned = self
            .receivers
            .iter()
            .find(|known| known.receiver.name == name);
        let planned = planned.ok_or_else(|| format!("there is no receiver `{name}`"))?;
        let mut way = self.way(planned, None, false);
        let (_, failure) = way.deliver(&[Told::test(name)]).await;
        way.close().await;
        failure.map_or(Ok(()), |failure| Err(failure.text))
    }

    /// Sends a receiver an event that was given up, once.
    ///
    /// # Errors
    ///
    /// Why it did not take it, in words.
    pub async fn resend(
        &self,
        letter: &DeadLetter,
        catalog: &Arc<dyn Catalog>,
    ) -> Result<(), String> {
        let name = &letter.receiver;
        let planned = self
            .receivers
            .iter()
            .find(|known| known.receiver.name == *name);
        let planned = planned.ok_or_else(|| {
            format!("the settings have no receiver `{name}` any more; `gannet notify drop` drops the event")
        })?;
        let mut way = self.way(planned, Some(catalog), false);
        let (_, failure) = way.deliver(&[Told::of(&letter.row)]).await;
        way.close().await;
        failure.map_or(Ok(()), |failure| Err(failure.text))
    }

    /// Tells the catalog who wants what. Receivers that the settings lack are forgotten if they were last seen before
    /// `lost`. Returns where the others are.
    async fn register(
        &self,
        catalog: &dyn Catalog,
        lost: DateTime<Utc>,
    ) -> Result<Vec<i64>, CatalogError> {
        let (known, now) = (catalog.receivers().await?, Utc::now());
        // Their last use is unknown, so it counts as now.
        for row in known
            .iter()
            .filter(|row| !clock::is_believable(row.seen, now))
        {
            catalog.save_receiver(&row.name, &row.events, now).await?;
        }
        let stray = known.iter().filter(|row| {
            let is_wanted = self
                .receivers
                .iter()
                .any(|planned| planned.receiver.name == row.name);
            // Listeners come back, or their time runs out.
            !row.name.is_empty() && !is_wanted && row.seen < lost
        });
        let stray: Vec<String> = stray.map(|row| row.name.clone()).collect();
        if !stray.is_empty() {
            tracing::warn!(
                "the settings have no receiver `{}` any more: events that wait for it are dropped",
                stray.join("`, `")
            );
            catalog.delete_receivers(stray).await?;
        }
        for Planned { receiver, .. } in &self.receivers {
            catalog
                .save_receiver(&receiver.name, &receiver.events, Utc::now())
                .await?;
        }
        let rows = catalog.receivers().await?;
        let position = |receiver: &Receiver| {
            let row = rows.iter().find(|row| row.name == receiver.name);
            row.map_or(0, |row| row.position)
        };
        Ok(self
            .receivers
            .iter()
            .map(|planned| position(&planned.receiver))
            .collect())
    }

    /// The time before which events are too old.
    fn oldest(&self) -> DateTime<Utc> {
        let age = TimeDelta::from_std(self.settings.max_age).ok();
        age.and_then(|age| Utc::now().checked_sub_signed(age))
            .unwrap_or(DateTime::UNIX_EPOCH)
    }
}

/// The tasks that deliver.
#[derive(Debug)]
pub struct Notifier {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
    live: Live,
}

/// What the task of a [`Notifier`] is told.
enum Order {
    /// To go by another plan.
    Change(Plan),
    /// To end, within so much time or what the plan allows.
    End(Duration),
}

impl Notifier {
    /// Has events written and delivered as `plan` says. `stays`: the process is a daemon, whose settings are the last
    /// word about receivers; those of another may lack some.
    ///
    /// # Errors
    ///
    /// When the catalog fails.
    pub async fn start(
        plan: Plan,
        catalog: Arc<dyn Catalog>,
        stays: bool,
    ) -> Result<Self, CatalogError> {
        let lost = match stays {
            true => Utc::now() + TimeDelta::days(1),
            false => plan.oldest(),
        };
        let positions = plan.register(&*catalog, lost).await?;
        let (orders, ordered) = mpsc::unbounded_channel();
        let live = Live::new(catalog.clone());
        let office = Office {
            live: live.clone(),
            catalog,
            plan,
            stays,
            deliveries: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        let task = tokio::spawn(office.run(ordered, positions));
        Ok(Self { orders, task, live })
    }

    /// Where events can be listened to, while this is there.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Goes by another plan from now on. What waits is delivered by it.
    pub fn replace(&self, plan: Plan) {
        // The task is there until `stop`.
        let _ = self.orders.send(Order::Change(plan));
    }

    /// Delivers what is there by now, for at most `events.stop_timeout`, or `most`. What is left waits for the next
    /// process.
    pub async fn stop(self, most: Duration) {
        let _ = self.orders.send(Order::End(most));
        if let Err(error) = self.task.await {
            tracing::error!("the task that delivers events panicked, please report it: {error}");
        }
    }
}

/// What [`Notifier`] has its task for.
struct Office {
    live: Live,
    catalog: Arc<dyn Catalog>,
    plan: Plan,
    stays: bool,
    deliveries: JoinSet<()>,
    stop: CancellationToken,
}

impl Office {
    async fn run(mut self, mut ordered: mpsc::UnboundedReceiver<Order>, positions: Vec<i64>) {
        self.begin(positions);
        self.measure().await;
        let mut rounds = tokio::time::interval_at(Instant::now() + ROUND, ROUND);
        let most = loop {
            tokio::select! {
                order = ordered.recv() => match order {
                    Some(Order::Change(plan)) => self.change(plan).await,
                    Some(Order::End(most)) => break most,
                    None => break Duration::ZERO,
                },
                Some(ended) = self.deliveries.join_next() => note(ended),
                _ = rounds.tick() => {
                    self.trim().await;
                    self.measure().await;
                    if self.stays {
                        self.live.tidy().await;
                    }
                }
            }
        };
        if !self.end(self.plan.settings.stop_timeout.min(most)).await {
            tracing::warn!(
                "not all events were delivered in time; the rest waits for the next start"
            );
        }
        self.trim().await;
    }

    /// Updates the figures of receivers.
    async fn measure(&self) {
        let Ok(backlog) = self.catalog.backlog().await else {
            // Whatever needs the catalog says so.
            return;
        };
        let names = self.plan.receivers.iter();
        METRICS.keep_receivers(names.map(|planned| planned.receiver.name.as_str()));
        for row in backlog {
            METRICS.receiver(&row.receiver, |figures| {
                (figures.waiting, figures.dead) = (row.waiting, row.dead);
            });
        }
    }

    /// Drops what is beyond the limits of the outbox.
    async fn trim(&self) {
        let (keep, oldest) = (self.plan.settings.keep, self.plan.oldest());
        let trimmed = self.catalog.trim_events(keep, oldest, Utc::now());
        match trimmed.await {
            Ok(None) => {}
            Ok(Some((missed, last))) => {
                self.live.note_dropped(last);
                if missed > 0 {
                    METRICS.events_dropped(missed);
                    tracing::warn!(
                        "the outbox was beyond `events.keep` or `events.max_age`: dropped {missed} events that a receiver has not had"
                    );
                }
            }
            Err(error) => tracing::error!("cannot trim the outbox: {}", describe(&error)),
        }
    }

    /// Has deliveries deliver what is there, for at most `limit`. Returns whether all came to their end.
    async fn end(&mut self, limit: Duration) -> bool {
        self.stop.cancel();
        let deliveries = &mut self.deliveries;
        let ended = async {
            while let Some(ended) = deliveries.join_next().await {
                note(ended);
            }
        };
        let in_time = tokio::time::timeout(limit, ended).await.is_ok();
        self.deliveries.shutdown().await;
        in_time
    }

    fn begin(&mut self, positions: Vec<i64>) {
        for (planned, position) in self.plan.receivers.iter().zip(positions) {
            let delivery = Delivery {
                receiver: planned.receiver.clone(),
                way: self.plan.way(planned, Some(&self.catalog), self.stays),
                catalog: self.catalog.clone(),
                position,
                refused_for: self.plan.settings.refused_for,
                dead_letters: self.plan.settings.dead_letters,
                stop: self.stop.clone(),
            };
            self.deliveries.spawn(delivery.run());
        }
    }

    /// Ends all deliveries, and begins those of another plan where they were.
    async fn change(&mut self, plan: Plan) {
        self.end(CHANGE).await;
        self.stop = CancellationToken::new();
        self.plan = plan;
        let lost = Utc::now() + TimeDelta::days(1);
        match self.plan.register(&*self.catalog, lost).await {
            Ok(positions) => self.begin(positions),
            Err(error) => tracing::error!(
                "no events are delivered until the settings are read again: {}",
                describe(&error)
            ),
        }
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!("a delivery of events panicked, please report it: {error}");
    }
}
