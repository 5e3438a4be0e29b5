//! The kinds of the group `batch`, with the columns `kubectl` shows for them.

use super::{AGE, Access, Cell, Kind, NAME, computed, path, wide};

/// Jobs.
pub const JOBS: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short: &[],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        computed("STATUS", "job_status"),
        computed("COMPLETIONS", "job_completions"),
        computed("DURATION", "job_duration"),
        AGE,
        wide("CONTAINERS", Cell::Computed("template_containers")),
        wide("IMAGES", Cell::Computed("template_images")),
        wide("SELECTOR", Cell::Computed("label_selector")),
    ],
};

/// Cron jobs.
pub const CRONJOBS: Kind = Kind {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short: &["cj"],
    namespaced: true,
    access: Access::Full,
    columns: &[
        NAME,
        path("SCHEDULE", &["spec", "schedule"], ""),
        path("TIMEZONE", &["spec", "timeZone"], "<none>"),
        computed("SUSPEND", "cronjob_suspend"),
        computed("ACTIVE", "cronjob_active"),
        computed("LAST SCHEDULE", "cronjob_last_schedule"),
        AGE,
        wide("CONTAINERS", Cell::Computed("cronjob_containers")),
        wide("IMAGES", Cell::Computed("cronjob_images")),
        wide("SELECTOR", Cell::Path(&["spec", "jobTemplate", "spec", "selector"], "<none>")),
    ],
};
