//! Supervision: every service runs in its own task. One that fails or panics is
//! restarted with jittered backoff and disturbs no other. What does not live
//! here: retrying a device, which is its service's own business.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::event::Text;
use crate::health::{Health, Trouble};

/// What a service's `serve` gives back.
pub type ServiceResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;
/// A service's life as a future.
pub type ServiceFuture = Pin<Box<dyn Future<Output = ServiceResult> + Send>>;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A service that ran this long is taken as recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(120);
/// How long a service may take to end before its task is dropped (the contract's 5 s, less the rest).
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// A supervised service.
pub struct Supervised {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts `make` again and again until it ends orderly or `parent` is cancelled.
    pub fn spawn<F>(name: String, parent: &CancellationToken, health: Health, make: F) -> Self
    where
        F: Fn(CancellationToken) -> ServiceFuture + Send + 'static,
    {
        Self::spawn_pausing(name, parent, health, FIRST_PAUSE, make)
    }

    fn spawn_pausing<F>(
        name: String,
        parent: &CancellationToken,
        health: Health,
        first_pause: Duration,
        make: F,
    ) -> Self
    where
        F: Fn(CancellationToken) -> ServiceFuture + Send + 'static,
    {
        let stop = parent.child_token();
        let token = stop.clone();
        let task = tokio::spawn(async move { keep_alive(&name, &token, &health, first_pause, make).await });
        Self { stop, task }
    }

    /// Ends the service and waits for it, within a bound.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_WITHIN, &mut self.task).await.is_err() {
            tracing::warn!("a service did not end in time; its task is dropped");
            self.task.abort();
        }
    }
}

impl Drop for Supervised {
    /// Nobody waits any longer; it is told all the same.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn keep_alive<F>(name: &str, stop: &CancellationToken, health: &Health, first_pause: Duration, make: F)
where
    F: Fn(CancellationToken) -> ServiceFuture,
{
    let mut pause = first_pause;
    let part = format!("service/{name}");
    while !stop.is_cancelled() {
        let began = Instant::now();
        // A child of our own so that a panicking service leaves no tasks of its own running.
        let run = stop.child_token();
        // Dropped with us, it goes too: a service that was given up must not hold its device.
        let outcome = AbortOnDropHandle::new(tokio::spawn(make(run.clone()))).await;
        run.cancel();
        // One that fails again and again is no reason for the watchdog to end all the others.
        health.rest(name);
        let why = match outcome {
            Ok(Ok(())) if stop.is_cancelled() => break,
            Ok(Ok(())) => "it ended by itself".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(join) if join.is_panic() => "it panicked; this is a bug, please report the log".to_owned(),
            Err(join) => join.to_string(),
        };
        if began.elapsed() > RECOVERED_AFTER {
            pause = first_pause;
        }
        let wait = jittered(pause);
        tracing::error!(service = name, error = %why, restart_in_ms = wait.as_millis(), "service ended");
        metrics::counter!("baygate_service_restarts_total", "service" => name.to_owned()).increment(1);
        health.trouble(Trouble {
            part: part.clone(),
            code: "service-restarting".into(),
            text: Text::new(
                format!("服务中断，正在重启：{why}"),
                format!("service ended and is being restarted: {why}"),
            ),
            blocks_ready: false,
        });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => break,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        health.well(&part);
    }
    health.well(&part);
}

/// Between half and all of `pause`, so that many boxes do not move in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the full pause does.
    if getrandom::fill(&mut byte).is_err() {
        return pause;
    }
    pause.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_panicking_service_is_restarted_and_stops_when_told() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&runs);
        let stop = CancellationToken::new();
        let pause = Duration::from_millis(1);
        let service = Supervised::spawn_pausing("t".into(), &stop, Health::default(), pause, move |stop| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                match run {
                    0 => panic!("first"),
                    1 => Err("second".into()),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            })
        });
        let third = async {
            while runs.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), third).await.expect("restarted twice");
        service.stop().await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_service_that_waits_for_its_restart_is_not_stuck() {
        let (stop, health) = (CancellationToken::new(), Health::default());
        let beating = health.clone();
        let service = Supervised::spawn("uplink".into(), &stop, health.clone(), move |_| {
            beating.beat("uplink");
            Box::pin(async { panic!("always") })
        });
        let waits = async {
            while health.troubles().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waits).await.expect("it panicked");
        assert!(health.stuck(Duration::ZERO).is_empty(), "the watchdog would end the daemon for it");
        service.stop().await;
    }

    #[tokio::test]
    async fn a_service_that_is_given_up_is_dropped_with_all_it_holds() {
        let held = Arc::new(());
        let device = Arc::clone(&held);
        let stop = CancellationToken::new();
        let service = Supervised::spawn("t".into(), &stop, Health::default(), move |_| {
            let device = Arc::clone(&device);
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(device);
                Ok(())
            })
        });
        while Arc::strong_count(&held) < 3 {
            tokio::task::yield_now().await;
        }
        // What `stop` does in the end.
        service.task.abort();
        let dropped = async {
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), dropped).await.expect("it still holds its device");
    }
}
