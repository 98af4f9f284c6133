//! `batch`: jobs.

pub mod cron_job;
pub mod job;
mod job_policy;
mod job_spec;
mod job_status;
mod schedule;
