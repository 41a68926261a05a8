//! Wakes the daemon.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// How long to wait for a tick before looking all the same: no hiccup of the scheduler makes a schedule late.
const LONGEST: Duration = Duration::from_secs(2);

/// Ticks every second. What is due is for the timetables to say, which know time zones and the clock's leaps.
pub(super) struct Clock {
    ticks: mpsc::Receiver<()>,
    _scheduler: JobScheduler,
}

impl Clock {
    pub(super) async fn start() -> Result<Self, JobSchedulerError> {
        let (tell, ticks) = mpsc::channel(1);
        let scheduler = JobScheduler::new().await?;
        let every_second = Job::new("* * * * * *", move |_, _| {
            // One that nobody took yet is enough.
            let _ = tell.try_send(());
        })?;
        scheduler.add(every_second).await?;
        scheduler.start().await?;
        Ok(Self {
            ticks,
            _scheduler: scheduler,
        })
    }

    /// Waits for the next tick. Cancel safe.
    pub(super) async fn tick(&mut self) {
        if let Ok(None) = tokio::time::timeout(LONGEST, self.ticks.recv()).await {
            // The scheduler is gone.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
