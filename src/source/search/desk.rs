//! Asks one provider: as often as it may be asked, again where that helps.

use std::sync::Arc;

use super::lanes::{Lane, Limits, NotNow};
use super::{
    Answer, Cursor, Page, Provider, Query, Search, SearchError, SearchProvider, read_page,
};
use crate::fetch;

/// What it takes to ask one provider.
#[derive(Debug)]
pub(super) struct Desk {
    provider: Arc<dyn SearchProvider>,
    limits: Limits,
    search: Search,
    lane: Arc<tokio::sync::Mutex<Lane>>,
}

impl Desk {
    pub(super) fn new(
        provider: Arc<dyn SearchProvider>,
        settings: &Provider,
        search: &Search,
    ) -> Self {
        Self {
            limits: settings.limits(),
            lane: search.lanes.of(provider.name()),
            search: search.clone(),
            provider,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.provider.name()
    }

    /// The page at `cursor`. Nobody else in the process asks the provider while it answers. Cancel safe.
    pub(super) async fn page(
        &self,
        query: &Query,
        cursor: Option<Cursor>,
    ) -> Result<Page, SearchError> {
        let settings = &self.search.fetch;
        let (mut failures, mut waits) = (0, 0);
        loop {
            let mut lane = self.lane.lock().await;
            let turn = lane.turn(self.limits, settings.retry_after_max).await;
            turn.map_err(|NotNow { why, wait }| SearchError::Quota {
                detail: why.to_owned(),
                retry_after: Some(wait),
            })?;
            let error = match self.ask(query, cursor.clone()).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            match &error {
                SearchError::Quota {
                    retry_after: Some(wait),
                    ..
                } => {
                    waits += 1;
                    lane.leave(fetch::backoff(settings, waits, Some(*wait)));
                    // One that names a moment and then still does not want to is not asked for ever.
                    if *wait > settings.retry_after_max || waits > settings.retries.max(1) {
                        return Err(error);
                    }
                }
                SearchError::Outage {
                    is_retriable: true,
                    retry_after,
                    ..
                } => {
                    if let Some(wait) = retry_after {
                        lane.leave(*wait);
                    }
                    drop(lane);
                    failures += 1;
                    let is_long = retry_after.is_some_and(|wait| wait > settings.retry_after_max);
                    if is_long || failures > settings.retries {
                        return Err(error);
                    }
                    // Others may ask meanwhile, for something else.
                    tokio::time::sleep(fetch::backoff(settings, failures, None)).await;
                }
                _ => return Err(error),
            }
            tracing::debug!("`{}` {error}; another attempt follows", self.name());
        }
    }

    async fn ask(&self, query: &Query, cursor: Option<Cursor>) -> Result<Page, SearchError> {
        let request = self.provider.request(query, cursor.as_ref())?;
        let mut page = match self.search.ask.ask(&request).await {
            Ok(answer) => self.read(query.clone(), cursor, answer).await,
            Err(failure) => Err(SearchError::Outage {
                detail: failure.text,
                retry_after: None,
                is_retriable: failure.is_retriable,
            }),
        };
        if let Err(error) = &mut page {
            let detail = error.detail_mut();
            *detail = request.masked(detail);
        }
        page
    }

    /// Parses away from the threads that others wait for; a panic costs this page alone.
    async fn read(
        &self,
        query: Query,
        cursor: Option<Cursor>,
        answer: Answer,
    ) -> Result<Page, SearchError> {
        let provider = self.provider.clone();
        let read = tokio::task::spawn_blocking(move || {
            read_page(&*provider, &query, cursor.as_ref(), &answer)
        });
        read.await.unwrap_or_else(|panic| {
            Err(SearchError::Changed {
                detail: format!("reading it failed: {panic}"),
            })
        })
    }
}
