//! The kinds of the group `batch`, with the columns `kubectl` shows for them.

use super::{AGE, Access, Cell, Kind, NAME, computed, wide};

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
