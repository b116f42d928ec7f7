//! The service bay: dongles, the read-only gate, visits, reports.
