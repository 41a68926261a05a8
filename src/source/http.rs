//! Remote lists and searches through the one client of the process, and so under its guard and limits.

use async_trait::async_trait;
use url::Url;

use super::search::{self, Ask, AskFailure, PageRequest};
use super::{Answer, Fetch, FetchFailure, RemoteBody};
use crate::fetch::{Client, FetchError, StoredValidators};
use crate::target::describe;

/// What a list may come as; anything else is taken as well, and judged by its bytes.
const ACCEPT: &str = "text/plain, text/csv, text/tab-separated-values, application/x-ndjson, \
                      application/json, application/xml, text/xml, application/rss+xml, \
                      application/atom+xml, */*;q=0.5";

#[async_trait]
impl Fetch for Client {
    async fn open(
        &self,
        url: &Url,
        known: Option<&StoredValidators>,
    ) -> Result<Answer, FetchFailure> {
        // A list streams, so its length costs no memory; whoever reads it sets a limit.
        let response = self.get_patiently(url, ACCEPT, u64::MAX, known).await?;
        if !response.has_body() {
            return Ok(Answer::Unchanged {
                final_url: response.url,
            });
        }
        Ok(Answer::Body(RemoteBody {
            media_type: response.content_type().map(str::to_owned),
            final_url: response.url.clone(),
            validators: response.validators(),
            length: response.content_length(),
            stream: Box::pin(response.into_reader()),
        }))
    }
}

#[async_trait]
impl Ask for Client {
    async fn ask(&self, request: &PageRequest) -> Result<search::Answer, AskFailure> {
        let (url, query, headers) = (request.url(), request.query(), request.headers().clone());
        let answered = Client::ask(self, url, query.as_deref(), headers, search::MAX_ANSWER).await;
        let answer = answered.map_err(|error| AskFailure {
            text: match &error {
                // No setting raises this limit.
                FetchError::TooLarge { limit, .. } => {
                    format!("its answer has more than {limit} bytes")
                }
                error => describe(error),
            },
            is_retriable: error.is_retriable(),
        })?;
        Ok(search::Answer {
            status: answer.status,
            headers: answer.headers,
            url: url.clone(),
            body: answer.body,
        })
    }
}
