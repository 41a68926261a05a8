//! MQTT brokers: a message for each event, with QoS 1, which the broker acknowledges before the event counts.
//!
//! The connection has a task of its own, so that it lives while nothing is delivered. When it ends, so does all that it
//! had under way, and the next one begins with the first event that was not acknowledged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::delivery::{Deliver, Failure};
use super::line::Dial;
use super::settings::{Mqtt, MqttVersion};
use super::told::Told;

/// Messages under way at a time.
const WINDOW: usize = 64;

/// Seconds after which a silent connection is probed.
const KEEP_ALIVE: u16 = 30;

/// Largest message, where the broker does not say what it takes.
const LARGEST: usize = 1024 * 1024;

/// How often in a row an event may cost the connection, before the event is taken for the reason.
const LOSSES: u32 = 3;

/// How long the end of a connection may take to be known everywhere.
const MOMENT: Duration = Duration::from_millis(200);

/// Longest part of a topic that a field may make.
const LONGEST_FIELD: usize = 256;

pub(super) struct Publishing {
    pub(super) to: Mqtt,
    pub(super) dial: Dial,
    pub(super) timeout: Duration,
    /// Whether it tells that it is there, and the broker that it is gone.
    pub(super) is_present: bool,
    pub(super) session: Option<Session>,
    /// The event with which the connection was lost, and how often in a row. It is published alone then: a broker may
    /// hang up on one that is too large, or not allowed.
    pub(super) suspect: Option<(i64, u32)>,
}

/// A connection to a broker.
pub(super) struct Session {
    publish: Box<dyn Publish>,
    task: JoinHandle<()>,
    state: watch::Receiver<State>,
    why: Arc<Mutex<Option<Failure>>>,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begun,
    Connected,
    Ended,
}

/// What became of a message, once the broker says.
type Acknowledged = BoxFuture<'static, Result<(), Failure>>;

/// A client of either version.
#[async_trait]
trait Publish: Send + Sync {
    /// Hands a message to the connection.
    async fn publish(
        &self,
        topic: String,
        payload: Bytes,
        retain: bool,
    ) -> Result<Acknowledged, Failure>;

    /// Has the connection end in good order.
    async fn disconnect(&self);
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    fn is_over(&self) -> bool {
        *self.state.borrow() == State::Ended
    }

    /// Why it ended.
    fn why(&self) -> Failure {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
            .unwrap_or_else(|| Failure::away("the connection was lost"))
    }
}

macro_rules! version {
    ($name:ident, $library:ident, $will:expr, $prepare:expr, $is_too_large:expr) => {
        mod $name {
            use $library::{
                AsyncClient, Broker, ConnectionError, Event, MqttOptions, Packet,
                PublishNoticeError, PublishOptions, QoS,
            };

            use super::*;

            #[async_trait]
            impl Publish for AsyncClient {
                async fn publish(
                    &self,
                    topic: String,
                    payload: Bytes,
                    retain: bool,
                ) -> Result<Acknowledged, Failure> {
                    let options = PublishOptions::new(QoS::AtLeastOnce).retain(retain);
                    let notice = self.publish_tracked(topic, payload, options).await;
                    let notice = notice.map_err(|error| Failure::away(error.to_string()))?;
                    Ok(Box::pin(async move {
                        match notice.wait_completion_async().await {
                            Ok(()) => Ok(()),
                            Err(
                                error @ (PublishNoticeError::Recv
                                | PublishNoticeError::SessionReset),
                            ) => Err(Failure::away(error.to_string())),
                            Err(error) => Err(Failure::refused(error.to_string())),
                        }
                    }))
                }

                async fn disconnect(&self) {
                    let _ = AsyncClient::disconnect(self).await;
                }
            }

            /// Begins a connection.
            pub(super) fn open(to: &Mqtt, id: String, dial: Dial, is_present: bool) -> Session {
                let mut options = MqttOptions::new(id, Broker::tcp(&to.host, to.port));
                options.set_keep_alive(KEEP_ALIVE);
                $prepare(&mut options);
                options.set_socket_connector(move |_, _| {
                    let dial = dial.clone();
                    async move { dial.connect().await }
                });
                if let Some((user, password)) = &to.credentials {
                    use secrecy::ExposeSecret as _;
                    let password = Bytes::copy_from_slice(password.expose_secret().as_bytes());
                    options.set_credentials(user.clone(), password);
                }
                if let Some(topic) = to.status_topic.as_ref().filter(|_| is_present) {
                    options.set_last_will($will(topic.clone()));
                }
                let (client, mut events) = AsyncClient::builder(options).capacity(WINDOW).build();
                let (tell, state) = watch::channel(State::Begun);
                let why = Arc::new(Mutex::new(None));
                let task = tokio::spawn({
                    let why = why.clone();
                    async move {
                        loop {
                            match events.poll().await {
                                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                                    tell.send_replace(State::Connected);
                                }
                                Ok(_) => {}
                                Err(error) => {
                                    let text = match &error {
                                        ConnectionError::Io(error) => error.to_string(),
                                        ConnectionError::ConnectionRefused(code) => {
                                            format!("the broker refuses: {code:?}")
                                        }
                                        error => error.to_string(),
                                    };
                                    let failure = match $is_too_large(&error) {
                                        true => Failure::refused(text),
                                        false => Failure::away(text),
                                    };
                                    let mut why =
                                        why.lock().unwrap_or_else(PoisonError::into_inner);
                                    why.get_or_insert(failure);
                                    break;
                                }
                            }
                        }
                        // Whoever waits for messages under way hears that nobody does any more.
                        drop(events);
                        tell.send_replace(State::Ended);
                    }
                });
                Session {
                    publish: Box::new(client),
                    task,
                    state,
                    why,
                }
            }
        }
    };
}

version!(
    v4,
    rumqttc_v4,
    |topic| rumqttc_v4::LastWill::new(topic, "offline", rumqttc_v4::QoS::AtLeastOnce, true),
    |options: &mut rumqttc_v4::MqttOptions| {
        options.set_max_packet_size(LARGEST, LARGEST);
    },
    |_: &rumqttc_v4::ConnectionError| false
);
version!(
    v5,
    rumqttc_v5,
    |topic| rumqttc_v5::LastWill::new(topic, "offline", rumqttc_v5::QoS::AtLeastOnce, true, None),
    |_: &mut rumqttc_v5::MqttOptions| {},
    |error: &rumqttc_v5::ConnectionError| {
        use rumqttc_v5::{ConnectionError, Error, StateError};
        // The broker says what it takes.
        let ConnectionError::MqttState(error) = error else {
            return false;
        };
        matches!(
            error,
            StateError::OutgoingPacketTooLarge { .. }
                | StateError::Deserialization(Error::OutgoingPacketTooLarge { .. })
        )
    }
);

#[async_trait]
impl Deliver for Publishing {
    async fn prepare(&mut self) -> Result<(), Failure> {
        if self.is_present {
            self.connect().await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, events: &[Told]) -> (usize, Option<Failure>) {
        match self.connect().await {
            Ok(()) => {}
            Err(failure) => return (0, Some(failure)),
        }
        let Some(session) = &self.session else {
            return (0, None);
        };
        let mut under_way = Vec::with_capacity(WINDOW);
        let mut failure = None;
        let limit = tokio::time::Instant::now() + self.timeout;
        let window = match self.suspect {
            Some(_) => 1,
            None => WINDOW,
        };
        for told in events.iter().take(window) {
            let (topic, payload) = self.message(told);
            let published = session.publish.publish(topic, payload, false);
            match tokio::time::timeout_at(limit, published).await {
                Ok(Ok(acknowledged)) => under_way.push(acknowledged),
                Ok(Err(why)) => failure = Some(why),
                Err(_) => failure = Some(self.late()),
            }
            if failure.is_some() {
                break;
            }
        }
        let mut done = 0;
        for acknowledged in under_way {
            let acknowledged = tokio::time::timeout_at(limit, acknowledged).await;
            match acknowledged.unwrap_or_else(|_| Err(self.late())) {
                Ok(()) => done += 1,
                Err(why) => {
                    failure = Some(why);
                    break;
                }
            }
        }
        let suspected = self.suspect.take();
        if let Some(why) = &mut failure {
            if !why.is_refused {
                // Those who wait for messages may hear of the end before the reason is there.
                let mut state = session.state.clone();
                let ended = state.wait_for(|state| *state == State::Ended);
                let _ = tokio::time::timeout(MOMENT, ended).await;
            }
            if !why.is_refused && session.is_over() {
                *why = session.why();
                let id = events.get(done).map_or(0, |told| told.id);
                let losses = match suspected {
                    Some((same, losses)) if same == id => losses + 1,
                    _ => 1,
                };
                self.suspect = Some((id, losses));
                why.is_refused |= losses > LOSSES;
            }
            // What else is under way is not to come before what failed does again.
            self.session = None;
        }
        (done, failure)
    }

    async fn close(&mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if let Some(topic) = self.to.status_topic.clone().filter(|_| self.is_present) {
            let left = async {
                let told = session.publish.publish(topic, Bytes::from("offline"), true);
                told.await?.await
            };
            let _ = tokio::time::timeout(self.timeout, left).await;
        }
        let ended = async {
            session.publish.disconnect().await;
            let _ = session.state.wait_for(|state| *state == State::Ended).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
    }
}

impl Publishing {
    /// Connects, unless it is.
    async fn connect(&mut self) -> Result<(), Failure> {
        if self
            .session
            .as_ref()
            .is_some_and(|session| !session.is_over())
        {
            return Ok(());
        }
        // Two clients of one name would put each other out.
        let id = self.to.client_id.clone();
        let id =
            id.unwrap_or_else(|| format!("gannet-{}", &Uuid::new_v4().simple().to_string()[..12]));
        let open = match self.to.version {
            MqttVersion::V4 => v4::open,
            MqttVersion::V5 => v5::open,
        };
        let mut session = open(&self.to, id, self.dial.clone(), self.is_present);
        let begun = session.state.wait_for(|state| *state != State::Begun);
        let begun = tokio::time::timeout(self.timeout, begun).await;
        match begun.map(|begun| begun.map(|state| *state)) {
            Ok(Ok(State::Connected)) => {}
            Ok(_) => return Err(session.why()),
            Err(_) => return Err(self.late()),
        }
        if let Some(topic) = self.to.status_topic.clone().filter(|_| self.is_present) {
            let there = async {
                let told = session.publish.publish(topic, Bytes::from("online"), true);
                told.await?.await
            };
            let there = tokio::time::timeout(self.timeout, there).await;
            match there.unwrap_or_else(|_| Err(self.late())) {
                // A broker that allows no such topic may take events all the same.
                Err(failure) if failure.is_refused => {
                    tracing::debug!("the broker does not take the status: {}", failure.text)
                }
                there => there?,
            }
        }
        self.session = Some(session);
        Ok(())
    }

    fn late(&self) -> Failure {
        let limit = humantime::format_duration(self.timeout);
        Failure::away(format!("there was no answer within {limit}"))
    }

    fn message(&self, told: &Told) -> (String, Bytes) {
        let topic = self.to.topic.fill(told, |told, field| match field {
            "event/" => told.event.replace('.', "/"),
            field => level(&told.text(field)),
        });
        let payload = match &self.to.payload {
            None => told.json(),
            Some(template) => template.fill(told, Told::text),
        };
        (topic, Bytes::from(payload))
    }
}

/// A text as one level of a topic: without what divides levels, and what only subscriptions may have (MQTT 5, section
/// 4.7). One that is empty is a `-`.
fn level(text: &str) -> String {
    let plain = |c: char| match c {
        '+' | '#' | '/' => '_',
        c if c.is_control() => '_',
        c => c,
    };
    let mut level: String = text.chars().map(plain).take(LONGEST_FIELD).collect();
    // Brokers keep `$SYS` and its like for themselves.
    if level.starts_with('$') {
        level.replace_range(..1, "_");
    }
    match level.is_empty() {
        true => "-".to_owned(),
        false => level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_a_topic_is_one() {
        for (text, expected) in [
            ("shop", "shop"),
            ("a/b+c#d", "a_b_c_d"),
            ("$SYS", "_SYS"),
            ("", "-"),
            ("a\0b\nc", "a_b_c"),
            ("Grüße", "Grüße"),
        ] {
            assert_eq!(level(text), expected);
        }
        assert_eq!(level(&"é".repeat(999)).chars().count(), LONGEST_FIELD);
    }
}
