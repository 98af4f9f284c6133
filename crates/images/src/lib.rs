//! Image import, content store and snapshots
