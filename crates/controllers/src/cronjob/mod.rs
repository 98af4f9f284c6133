//! CronJobs: make a Job at each time of a schedule.

mod schedule;

use crate::context::{Context, synced};
use crate::job::is_finished;
use crate::ownership::{self, controlled_by, is_already_exists, is_namespace_terminating, is_not_found, message};
use crate::pods;
use api::k8s::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use api::k8s::core::v1::ObjectReference;
use api::machinery::apis::meta::v1::{ObjectMeta, Time};
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue, reference};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};
use schedule::Schedule;
use std::sync::Arc;
use std::time::Duration;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this mean that clocks are off, or the job was suspended for long.
const MANY_MISSED: usize = 100;

struct CronJobs {
    ctx: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (crons, jobs) = (ctx.informer::<CronJob>(), ctx.informer::<Job>());
    ownership::index(&jobs);
    let enqueue = queue.clone();
    crons.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let enqueue = queue.clone();
    jobs.on_event(move |event| {
        let job = event.object();
        if let Some(owner) = controlled_by::<CronJob>(job.as_ref()) {
            enqueue.add(Key::new(job.namespace().unwrap_or_default(), owner.name.clone()));
        }
    });
    synced!(crons, jobs);
    let reconciler = CronJobs { ctx: ctx.clone(), crons, jobs };
    Controller::new("cronjob", queue, reconciler).run(ctx.shutdown()).await;
}

/// Which scheduled time is due, and when the next one is.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    latest: Option<Timestamp>,
    next: Option<Timestamp>,
    missed: usize,
}

/// Looks at the times since the last one that was served.
fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Due {
    let (mut latest, mut missed, mut at) = (None, 0, since);
    while let Some(next) = schedule.next(at, zone) {
        if next > now {
            return Due { latest, next: Some(next), missed };
        }
        // With very many missed times, jump close to the present.
        missed += 1;
        if missed == MANY_MISSED {
            let close = now.checked_sub(SignedDuration::from_hours(2)).unwrap_or(next);
            at = next.max(close);
            latest = Some(next);
            continue;
        }
        latest = Some(next);
        at = next;
    }
    Due { latest, next: None, missed }
}

impl Reconcile for CronJobs {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(cron) = self.crons.get_key(key) else { return Ok(Requeue::Done) };
        let spec = cron.spec.clone();
        let jobs = ownership::owned(&self.jobs, cron.metadata.uid.as_deref().unwrap_or(""));
        let mut status = cron.status.clone().unwrap_or_default();
        self.note_finished(&cron, &jobs, &mut status);
        let next = match cron.metadata.deletion_timestamp.is_none() && spec.suspend != Some(true) {
            true => self.start_due(&cron, &spec, &jobs, &mut status).await,
            false => Ok(None),
        };
        if cron.status.clone().unwrap_or_default() != status {
            let wanted = CronJob { status: Some(status), ..CronJob::clone(&cron) };
            self.ctx.api::<CronJob>(&key.namespace).replace_status(&key.name, &PostParams::default(), &wanted).await?;
        }
        self.clean_up(&cron, &spec, &jobs).await?;
        Ok(next?
            .map_or(Requeue::Done, |at| Requeue::After(pods::until(at, Timestamp::now()) + Duration::from_millis(100))))
    }
}

impl CronJobs {
    /// Takes jobs that ended or vanished from the list of active ones.
    fn note_finished(&self, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus) {
        let active = status.active.take().unwrap_or_default();
        let mut still = Vec::new();
        for entry in active {
            match jobs.iter().find(|j| j.metadata.uid == entry.uid) {
                Some(job) if is_finished(job) => {
                    let word = if succeeded(job) { "Complete" } else { "Failed" };
                    let text = format!("Saw completed job: {}, condition: {word}", job.name_any());
                    self.ctx.normal(cron, "SawCompletedJob", text);
                }
                Some(_) => still.push(entry),
                None if self
                    .jobs
                    .get(&cron.namespace().unwrap_or_default(), entry.name.as_deref().unwrap_or(""))
                    .is_none() =>
                {
                    let text = format!("Active job went missing: {}", entry.name.as_deref().unwrap_or(""));
                    self.ctx.normal(cron, "MissingJob", text);
                }
                None => {}
            }
        }
        let listed = |job: &Job, list: &[ObjectReference]| list.iter().any(|e| e.uid == job.metadata.uid);
        // Adopted, or made just before a crash.
        let unlisted: Vec<_> = jobs
            .iter()
            .filter(|j| !is_finished(j) && j.metadata.deletion_timestamp.is_none() && !listed(j, &still))
            .collect();
        still.extend(unlisted.into_iter().map(|j| reference(j.as_ref())));
        status.active = Some(still).filter(|l| !l.is_empty());
        let completed =
            jobs.iter().filter(|j| succeeded(j)).filter_map(|j| j.status.as_ref()?.completion_time.clone()).max();
        status.last_successful_time = completed.max(status.last_successful_time.take());
    }

    /// Starts the job that is due; answers when the next one is.
    async fn start_due(
        &self,
        cron: &Arc<CronJob>,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<Option<Timestamp>, Error> {
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                self.ctx.warning(
                    cron.as_ref(),
                    "UnparseableSchedule",
                    format!("unparseable schedule: {:?} : {why}", spec.schedule),
                );
                return Ok(None);
            }
        };
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(_)) => {
                let zone = spec.time_zone.as_deref().unwrap_or("");
                self.ctx.warning(
                    cron.as_ref(),
                    "UnknownTimeZone",
                    format!("invalid timeZone: {zone:?}: unknown time zone {zone}"),
                );
                return Ok(None);
            }
        };
        let now = Timestamp::now();
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let due = due(&schedule, &zone, since(cron, status, deadline, now), now);
        if due.missed > MANY_MISSED {
            self.ctx.warning(
                cron.as_ref(),
                "TooManyMissedTimes",
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
            );
        }
        let Some(at) = due.latest else { return Ok(due.next) };
        if deadline.is_some_and(|d| at.checked_add(d).is_ok_and(|last| last < now)) {
            self.ctx.warning(cron.as_ref(), "MissSchedule", format!("Missed scheduled time to start a job: {at}"));
            return Ok(due.next);
        }
        let name = format!("{}-{}", cron.name_any(), at.as_second() / 60);
        if status.last_schedule_time.as_ref().is_some_and(|t| t.0 == at) || jobs.iter().any(|j| j.name_any() == name) {
            return Ok(due.next);
        }
        let active = status.active.clone().unwrap_or_default();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.ctx.normal(cron.as_ref(), "JobAlreadyActive", text);
                return Ok(due.next);
            }
            Some("Replace") => {
                for entry in &active {
                    self.delete(cron, entry.name.as_deref().unwrap_or(""), entry.uid.clone()).await?;
                }
                status.active = None;
            }
            _ => {}
        }
        self.start(cron, spec, (name, at), &zone, status).await?;
        Ok(due.next)
    }

    async fn start(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        (name, at): (String, Timestamp),
        zone: &TimeZone,
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let template = spec.job_template.metadata.clone().unwrap_or_default();
        let mut annotations = template.annotations.unwrap_or_default();
        let scheduled = match spec.time_zone {
            Some(_) => at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            None => at.to_string(),
        };
        annotations.insert(SCHEDULED_AT.into(), scheduled);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: cron.namespace(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![ownership::reference_to(cron)]),
            ..Default::default()
        };
        let job = Job { metadata, spec: spec.job_template.spec.clone(), status: None };
        let api = self.ctx.api::<Job>(&cron.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), &job).await {
            Ok(created) => {
                self.ctx.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                status.active.get_or_insert_default().push(reference(&created));
            }
            // Made before a crash: the informer will tell.
            Err(error) if is_already_exists(&error) => {}
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                self.ctx.warning(cron, "FailedCreate", format!("Error creating job: {}", message(&error)));
                return Err(error.into());
            }
        }
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, name: &str, uid: Option<String>) -> Result<(), Error> {
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        match self.ctx.api::<Job>(&cron.namespace().unwrap_or_default()).delete(name, &params).await {
            Ok(_) => self.ctx.normal(cron, "SuccessfulDelete", format!("Deleted job {name}")),
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                self.ctx.warning(cron, "FailedDelete", format!("Deleted job: {}", message(&error)));
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Deletes old finished jobs beyond the history limits.
    async fn clean_up(&self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Result<(), Error> {
        let limits = [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)];
        for (good, limit) in limits {
            let Some(limit) = limit.and_then(|n| usize::try_from(n).ok()) else { continue };
            let mut finished: Vec<&Arc<Job>> = jobs
                .iter()
                .filter(|j| is_finished(j) && succeeded(j) == good && j.metadata.deletion_timestamp.is_none())
                .collect();
            finished.sort_by_key(|j| (j.status.as_ref().and_then(|s| s.start_time.clone()), j.metadata.name.clone()));
            for job in finished.iter().take(finished.len().saturating_sub(limit)) {
                self.delete(cron, &job.name_any(), job.metadata.uid.clone()).await?;
            }
        }
        Ok(())
    }
}

fn succeeded(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Complete" && c.status == "True")
}

/// From when on times count: the last one served, but no further back than the starting deadline.
fn since(cron: &CronJob, status: &CronJobStatus, deadline: Option<SignedDuration>, now: Timestamp) -> Timestamp {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let last = status.last_schedule_time.as_ref().map_or(created, |t| t.0);
    deadline.and_then(|d| now.checked_sub(d).ok()).map_or(last, |earliest| earliest.max(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_missed_time_is_due() {
        let schedule = Schedule::parse("*/10 * * * *").expect("schedule");
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        let check = |since: &str, now: &str, latest: Option<&str>, next: &str| {
            let got = due(&schedule, &TimeZone::UTC, at(since), at(now));
            assert_eq!((got.latest, got.next), (latest.map(at), Some(at(next))));
        };
        check("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", None, "2026-01-01T00:10:00Z");
        check("2026-01-01T00:00:00Z", "2026-01-01T00:25:00Z", Some("2026-01-01T00:20:00Z"), "2026-01-01T00:30:00Z");
        check("2025-01-01T00:00:00Z", "2026-01-01T00:25:00Z", Some("2026-01-01T00:20:00Z"), "2026-01-01T00:30:00Z");
    }
}
