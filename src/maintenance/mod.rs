//! Warnings: rules as data, evaluated over reports.
