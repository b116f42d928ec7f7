//! Card faces: templates, rendering, printer drivers, the job queue.
