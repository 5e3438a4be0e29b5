//! An engine behind a fence: whatever fails raises it, and a raised fence lets nothing through.
//!
//! Invariant: after the first failure of a write, or the first damage that was read, the engine below is not asked again.

use std::{io, sync::Arc, time::Duration};

use super::{Batch, Engine, Row, View};
use crate::fault::Fence;

/// An engine and its fence.
pub(crate) struct Guarded {
    engine: Arc<dyn Engine>,
    fence: Fence,
}

impl Guarded {
    pub(crate) fn new(engine: Arc<dyn Engine>, fence: Fence) -> Self {
        Self { engine, fence }
    }
}

impl Engine for Guarded {
    fn view(&self, look: &mut dyn FnMut(&dyn View) -> io::Result<()>) -> io::Result<()> {
        self.fence.check()?;
        self.fence.read(self.engine.view(look))
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.fence.check()?;
        self.fence.written(self.engine.write(batch))
    }

    fn sync(&self) -> io::Result<()> {
        self.fence.check()?;
        self.fence.written(self.engine.sync())
    }

    fn delay(&self) -> Duration {
        self.engine.delay()
    }

    fn replace(&self, rows: &mut dyn Iterator<Item = io::Result<Row>>, meta: Batch) -> io::Result<()> {
        self.fence.check()?;
        self.fence.written(self.engine.replace(rows, meta))
    }

    fn free(&self) -> io::Result<u64> {
        self.engine.free()
    }

    fn close(&self) {
        self.engine.close();
    }

    fn closed(&self) -> bool {
        self.engine.closed()
    }
}
